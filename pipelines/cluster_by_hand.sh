#!/bin/sh
# A Dask cluster by hand: a scheduler, workers wherever they can reach it, one analysis.
#
#   sh pipelines/cluster_by_hand.sh RUN [WORKERS]
#
# As it stands everything is on this machine and listens on 127.0.0.1 only. On several machines:
# RUN lies on a file system that all of them share, HOST is an address they can reach, and the
# `dask worker` line is run on each. Whoever reaches an unencrypted scheduler can run code on every
# worker: keep it inside a private network, or give all three commands TLS certificates
# (--tls-ca-file, --tls-cert, --tls-key, and tls:// in the address).
set -eu
run=$1
workers=${2:-2}
host=${HOST:-127.0.0.1}
folder=$(mktemp -d)
file=$folder/scheduler.json
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

dask scheduler --host "$host" --port 0 --dashboard-address 127.0.0.1:0 \
    --scheduler-file "$file" >"$folder/scheduler.log" 2>&1 &
scheduler=$!
dask worker --scheduler-file "$file" --host "$host" --dashboard-address 127.0.0.1:0 \
    --nworkers "$workers" --nthreads 1 --local-directory "$folder" >"$folder/workers.log" 2>&1 &
pool=$!
trap 'kill $pool $scheduler 2>/dev/null; wait; rm -rf "$folder"' EXIT INT TERM

ndt-analyze "$run" --scheduler-file "$file" ${NDT_OPTIONS:-}
