# healthgptd in a container: non-root, read-only file system, no shell needed at run time.
#   docker build -t healthgpt .
#   docker run --rm --read-only --cap-drop=ALL -p 127.0.0.1:8080:8080 healthgpt
# With an NVIDIA card (driver for CUDA 13, NVIDIA container toolkit):
#   docker build -t healthgpt:cuda --build-arg BUILD=nvidia/cuda:13.0.1-devel-ubuntu24.04 \
#     --build-arg RUN=nvidia/cuda:13.0.1-base-ubuntu24.04 --build-arg CUDA=cuda \
#     --build-arg EXTRA=libcublas-13-0 .
#   docker run --rm --gpus all --read-only --cap-drop=ALL -p 127.0.0.1:8080:8080 healthgpt:cuda
# Another model: -v /path/to/model:/model:ro -e HEALTHGPT_MODEL=/model
ARG BUILD=debian:12-slim
ARG RUN=debian:12-slim

FROM ${BUILD} AS build
# "cuda": the CUDA backend too; needs nvcc in the image.
ARG CUDA=
WORKDIR /src
# By name, so that no build/ of the host comes along.
COPY Makefile ./
COPY common common/
COPY kernels kernels/
COPY model model/
COPY server server/
COPY tools tools/
COPY config config/
COPY deploy deploy/
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends make && make -s deps \
    && make -s all ${CUDA} && make -s install PREFIX=/opt/healthgpt
# The packages that hold the libraries the daemon was linked with, whatever this distribution calls them.
RUN ldd /opt/healthgpt/bin/healthgptd | awk '/=>/ {print $3}' | xargs -n1 readlink -f \
    | xargs dpkg -S 2>/dev/null | cut -d: -f1 | sort -u > /opt/healthgpt/packages

FROM ${RUN}
ARG EXTRA=
COPY --from=build /opt/healthgpt /opt/healthgpt
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends $(cat /opt/healthgpt/packages) ${EXTRA} \
    && rm -rf /var/lib/apt/lists/* && useradd --system --uid 10001 --no-create-home healthgpt
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/healthgpt/bin/healthgptd"]
# --insecure: inside a container loopback is the container's own; publishing the port decides who
# reaches it.
CMD ["--listen", "0.0.0.0:8080", "--insecure"]
