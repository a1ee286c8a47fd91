"""Make the buckets that are named and not there yet, in the store that MLFLOW_S3_ENDPOINT_URL names."""

import os
import sys

import boto3

store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
for name in sys.argv[1:]:
    if name not in there:
        store.create_bucket(Bucket=name)
    print(f"bucket {name}: {'there' if name in there else 'made'}")
