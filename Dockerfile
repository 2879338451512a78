# docker build -t bcd-bench . && docker run --rm -v "$PWD/runs:/work/runs" bcd-bench
FROM python:3.11-slim
WORKDIR /opt/bcd-bench
COPY . .
RUN pip install --no-cache-dir -c constraints.txt -e . -e plugins/sprites -e plugins/bcd
WORKDIR /work
ENTRYPOINT ["bcd-bench"]
CMD ["run", "--method", "bcd", "--suite", "sprites-procedural", "--limit", "64"]
