# healthgptd in a container: non-root, read-only file system, no shell needed at run time.
#   docker build -t healthgpt .
#   docker run --rm --read-only --cap-drop=ALL -p 127.0.0.1:8080:8080 healthgpt
# Another model: -v /path/to/model:/model:ro -e HEALTHGPT_MODEL=/model
FROM debian:12-slim AS build
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
    && make -s all && make -s install PREFIX=/opt/healthgpt

FROM debian:12-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends \
    libmicrohttpd12 libjansson4 libpng16-16 libjpeg62-turbo libpcre2-8-0 libunistring2 \
    && rm -rf /var/lib/apt/lists/* && useradd --system --uid 10001 --no-create-home healthgpt
COPY --from=build /opt/healthgpt /opt/healthgpt
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/healthgpt/bin/healthgptd"]
# --insecure: inside a container loopback is the container's own; publishing the port decides who
# reaches it.
CMD ["--listen", "0.0.0.0:8080", "--insecure"]
