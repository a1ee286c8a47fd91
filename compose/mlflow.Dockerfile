# MLflow's server with its packages for PostgreSQL and S3. The version is that of requirements.lock.
FROM python:3.12-slim-bookworm
RUN pip install --no-cache-dir "mlflow==3.17.2" "psycopg2-binary==2.9.13" "boto3==1.44.5" "fastapi<0.151" "sqlalchemy<2.1" \
 && useradd --uid 1000 --create-home mlflow
USER 1000
WORKDIR /home/mlflow
