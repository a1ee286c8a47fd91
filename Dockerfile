# The environment of the pipeline, with the pins of requirements.lock. The checkout is mounted over /rdmd: docs/cluster.md.
#   docker build --tag rdmd .                              # for a CPU
#   docker build --tag rdmd --build-arg DEVICE=cuda .      # for a GPU
FROM python:3.12-slim-bookworm

# g++ is for `launch.compile`. Debian's own pins change with its security updates, which a rebuild is to get.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ git \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --create-home rdmd \
 && chmod 1777 /home/rdmd

WORKDIR /rdmd
COPY requirements.lock pyproject.toml ./
ARG DEVICE=cpu
# The hashes of torch in the lock are those of the CUDA build; a CPU build has others.
RUN pip install --no-cache-dir "$(grep --only-matching '^uv==[0-9.]*' requirements.lock)" \
 && if [ "$DEVICE" = cpu ]; then \
      sed -i -E '/^torch(vision)?==/,/[^\\]$/ { s/ .*//; /^$/d }' requirements.lock \
   && export UV_TORCH_BACKEND=cpu; \
    fi \
 && uv pip install --system --no-cache --compile-bytecode --constraints requirements.lock -r pyproject.toml setuptools \
      --extra pipeline --extra avatars --extra demo --extra onnx \
 && uv pip install --system --no-cache --no-deps --no-build-isolation --editable .

USER 1000
# Also for a user whom only `docker run --user` names: Docker gives that one the home /, and DVC asks for a name.
ENV HOME=/home/rdmd USER=rdmd
ENV DO_NOT_TRACK=true DVC_NO_ANALYTICS=1
CMD ["sh", "-c", "rdmd check && python -m flows.server dvc repro && rdmd summary"]
