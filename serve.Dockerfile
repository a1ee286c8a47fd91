# A registered model as a server. The context is the folder of the model, which holds its code, weights and requirements:
#   export MLFLOW_TRACKING_URI=sqlite:///mlflow/store/mlflow.db      # a checkout's own store, or the address of a server
#   MLFLOW_DISABLE_TELEMETRY=true mlflow artifacts download --artifact-uri models:/rdmd-avatars@champion --dst-path model
#   docker build --file serve.Dockerfile --tag rdmd-avatars model
#   docker run --rm --publish 127.0.0.1:5001:5001 rdmd-avatars
FROM python:3.12-slim-bookworm

ARG DEVICE=cpu
COPY requirements.txt /model/
RUN pip install --no-cache-dir uv==0.13.9 \
 && if [ "$DEVICE" = cpu ]; then export UV_TORCH_BACKEND=cpu; fi \
 && uv pip install --system --no-cache --compile-bytecode -r /model/requirements.txt \
 && useradd --uid 1000 --create-home rdmd
COPY . /model

USER 1000
WORKDIR /home/rdmd
ENV MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
EXPOSE 5001
HEALTHCHECK --start-period=60s CMD \
  ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5001/ping', timeout=3)"]
CMD ["python", "/model/server.py", "--model-uri", "/model", "--host", "0.0.0.0", "--port", "5001"]
