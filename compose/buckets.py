"""Create the named buckets that do not exist yet in the store at MLFLOW_S3_ENDPOINT_URL."""

import os
import sys

import boto3

store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
for name in sys.argv[1:]:
    if name not in there:
        store.create_bucket(Bucket=name)
    print(f"bucket {name}: {'there' if name in there else 'made'}")
