"""Data sets on other servers, over HTTPS: `s3:` with moto, `https:` with a server that supports ranges."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness import clients, data
from harness.certificates import Authority
from harness.leak_scanner import LEDGER
from harness.stores import REGION, Moto
from harness.waiting import eventually

MANY = pa.table({"id": pa.array(range(200_000), pa.int64()), "name": [f"name {n}" for n in range(200_000)]})


def bucket(root):
    """A TLS server with its own CA and an empty bucket, and a client for it."""
    ca = Authority("moto's root")
    (root / "ca.pem").write_text(ca.pem)
    moto = Moto(root / "moto", ca.issue(("localhost",)), str(root / "ca.pem"))
    moto.authority = ca
    client = moto.client("s3")
    client.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    return moto, client


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A bucket behind TLS with its own CA: people in every format, and a directory of parts."""
    root = tmp_path_factory.mktemp("s3")
    moto, client = bucket(root)
    for form in ("parquet", "csv", "ndjson"):
        data.write(data.PEOPLE, root / f"people.{form}")
        client.upload_file(str(root / f"people.{form}"), "lake", f"in/people.{form}")
    parquet.write_table(MANY, root / "many.parquet", row_group_size=20_000)
    client.upload_file(str(root / "many.parquet"), "lake", "many/part-1.parquet")
    client.upload_file(str(root / "many.parquet"), "lake", "many/part-2.parquet")
    for year in (2025, 2026):
        client.upload_file(str(root / "people.csv"), "lake", f"by-year/year={year}/people.csv")
    yield moto
    moto.stop()


def lake(pod, s3, path: str, name: str = "t", **params) -> dict:
    pod.write("moto.pem", s3.authority.pem)
    params = {"s3_endpoint": s3.url, "s3_region": REGION, "s3_key": "root", "s3_secret": "root", "tls_ca_file": "moto.pem", **params}
    return {"from": f"s3://lake/{path}", "name": name, "params": {k: v for k, v in params.items() if v is not None}}


def state(server, name: str = "t") -> dict:
    return next(found for found in clients.get(server, "/v1/datasets").ok().json() if found["name"] == name)


def trouble(server) -> str:
    return eventually(lambda: state(server).get("error"), "it says what is wrong")


def test_every_format_and_directories(pod, s3):
    sets = [lake(pod, s3, f"in/people.{form}", form) for form in ("parquet", "csv", "ndjson")]
    sets += [lake(pod, s3, "many/", "folder"), lake(pod, s3, "many", "without_a_slash"), lake(pod, s3, "in/*.csv", "glob")]
    sets += [lake(pod, s3, "by-year/", "by_year", hive_partitioning_enabled="true", file_format="csv")]
    pod.yaml(tls=pod.write_pair(), datasets=sets)
    server = pod.serve()
    for name in ("parquet", "csv", "ndjson", "glob"):
        assert clients.rows(server, f"SELECT id, name FROM {name} ORDER BY id") == data.PEOPLE.to_pylist(), name
    for name in ("folder", "without_a_slash"):
        assert clients.rows(server, f"SELECT count(*) AS n, sum(id) AS s FROM {name}") == [{"n": 400_000, "s": 39_999_800_000}]
    assert clients.rows(server, "SELECT year, count(*) AS n FROM by_year GROUP BY year ORDER BY year") == [
        {"year": "2025", "n": 3},
        {"year": "2026", "n": 3},
    ]
    assert clients.rows(server, "SELECT name FROM folder WHERE id = 150000 LIMIT 1") == [{"name": "name 150000"}]


def test_a_new_object_is_seen(pod, s3, tmp_path):
    client = s3.client("s3")
    data.write(data.PEOPLE, tmp_path / "a.csv")
    client.upload_file(str(tmp_path / "a.csv"), "lake", "growing/a.csv")
    pod.yaml(tls=pod.write_pair(), datasets=[lake(pod, s3, "growing/")])
    server = pod.serve()
    assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 3}]
    client.upload_file(str(tmp_path / "a.csv"), "lake", "growing/b.csv")
    assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 6}]


POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}, {"Effect": "Allow", "Action": "sts:*", "Resource": "*"}],
}
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:*"}]}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A bucket that checks the signature and rights of every request: a user with access, one without, and a role."""
    root = tmp_path_factory.mktemp("guarded")
    moto, store = bucket(root)
    iam, sts = moto.client("iam"), moto.client("sts")
    data.write(data.PEOPLE, root / "people.csv")
    store.upload_file(str(root / "people.csv"), "lake", "in/people.csv")
    for user in ("ada", "eve"):
        iam.create_user(UserName=user)
    iam.put_user_policy(UserName="ada", PolicyName="all", PolicyDocument=json.dumps(POLICY))
    moto.role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    iam.put_role_policy(RoleName="reader", PolicyName="all", PolicyDocument=json.dumps(POLICY))
    keys = {user: iam.create_access_key(UserName=user)["AccessKey"] for user in ("ada", "eve")}
    keys = {user: (key["AccessKeyId"], key["SecretAccessKey"]) for user, key in keys.items()}
    assumed = sts.assume_role(RoleArn=moto.role, RoleSessionName="session")["Credentials"]
    keys["role"] = (assumed["AccessKeyId"], assumed["SecretAccessKey"], assumed["SessionToken"])
    for _key, *secrets in keys.values():
        for secret in secrets:
            LEDGER.add("a secret of S3", secret)
    moto.keys = keys
    moto.enforce_policies()
    yield moto
    moto.stop()


REFUSED = "403 Forbidden; see that `s3_key` and `s3_secret` .* are right, and that the bucket's policy"
IN_PARAMS = {
    "a key": ("ada", {}, None),
    "a session": ("role", {}, None),
    "a session without its token": ("role", {"s3_session_token": None}, REFUSED),
    "a wrong secret": ("ada", {"s3_secret": "x" * 40}, REFUSED),
    "a key that nobody has": ("ada", {"s3_key": "AKIANOBODY"}, REFUSED),
    "a user who may not": ("eve", {}, REFUSED),
    "nobody": ("ada", {"s3_auth": "public"}, REFUSED),
}


@pytest.mark.parametrize("who, params, words", IN_PARAMS.values(), ids=IN_PARAMS)
def test_signatures(pod, guarded, who, params, words):
    """moto checks each signature, as S3 does."""
    names = dict(zip(("s3_key", "s3_secret", "s3_session_token"), guarded.keys[who]))
    pod.yaml(tls=pod.write_pair(), datasets=[lake(pod, guarded, "in/people.csv", **{**names, **params})])
    server = pod.serve()
    if words is None:
        assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 3}]
    else:
        assert re.search(words, trouble(server)), trouble(server)


def test_public(pod, s3):
    """For a public bucket, requests are not signed and no credentials are looked up."""
    s3.client("s3").put_object_acl(Bucket="lake", Key="in/people.csv", ACL="public-read")
    pod.yaml(tls=pod.write_pair(), datasets=[lake(pod, s3, "in/people.csv", s3_auth="public", s3_key=None, s3_secret=None)])
    assert clients.rows(pod.serve(), "SELECT count(*) AS n FROM t") == [{"n": 3}]


IDENTITIES = ("a key", "a session", "a web identity", "a pod's identity")


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("written", [None, "iam_role"], ids=["by default", "written"])
def test_identity_of_the_machine(pod, guarded, fronts, tmp_path, identity, written):
    """As AWS identifies a program by its environment: the variables that EKS, ECS and a shell set."""
    key, secret, *token = guarded.keys["ada" if identity == "a key" else "role"]
    if identity in ("a key", "a session"):
        env = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, **({"AWS_SESSION_TOKEN": token[0]} if token else {})}
    elif identity == "a web identity":
        (tmp_path / "token").write_text("a.b.c")

        def sts(asked):
            """AWS STS: keys in exchange for a token. (moto treats an unsigned request as one to S3.)"""
            given = parse_qs(urlsplit(asked.path).query)
            wanted = {"Action": "AssumeRoleWithWebIdentity", "RoleArn": guarded.role, "WebIdentityToken": "a.b.c"}
            if any(given.get(name) != [value] for name, value in wanted.items()):
                return asked.answer(403, b"")
            told = {"AccessKeyId": key, "SecretAccessKey": secret, "SessionToken": token[0], "Expiration": "2099-01-01T00:00:00Z"}
            told = "".join(f"<{name}>{value}</{name}>" for name, value in told.items())
            name = "AssumeRoleWithWebIdentity"
            told = f"<{name}Response><{name}Result><Credentials>{told}</Credentials></{name}Result></{name}Response>"
            return asked.answer(200, told.encode(), "text/xml")

        env = {
            "AWS_ROLE_ARN": guarded.role,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
            "AWS_ENDPOINT_URL_STS": fronts(sts, guarded.authority.issue(("localhost",))).url,
        }
    else:
        word = LEDGER.mark("a token of a pod's identity")
        (tmp_path / "token").write_text(word)

        def agent(asked):
            """Amazon's agent on the node."""
            if asked.headers.get("Authorization") != word:
                return asked.answer(401, b"")
            told = {"AccessKeyId": key, "SecretAccessKey": secret, "Token": token[0], "Expiration": "2099-01-01T00:00:00Z"}
            return asked.answer(200, json.dumps(told).encode(), "application/json")

        env = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{fronts(agent).url}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
        }
    described = lake(pod, guarded, "in/people.csv", s3_auth=written, s3_key=None, s3_secret=None, s3_region=None)
    pod.yaml(tls=pod.write_pair(), datasets=[described])
    server = pod.serve(env={"AWS_REGION": REGION, **env})
    assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 3}]


WRONG = {
    "no CA that issued it": ({"tls_ca_file": None}, "issued by .*moto's root.*not trusted"),
    "no such object": ({}, "there is no file in `s3://lake/nothing/`|not found"),
    "no bucket": ({}, "404 Not Found"),
}


@pytest.mark.parametrize("what", WRONG)
def test_errors_of_an_unreadable_lake(pod, s3, what):
    params, words = WRONG[what]
    described = lake(pod, s3, "nothing/", **params)
    if what == "no bucket":
        described["from"] = "s3://no-such-bucket/x.parquet"
    pod.yaml(tls=pod.write_pair(), datasets=[described])
    said = trouble(pod.serve())
    assert re.search(words, said, re.DOTALL) and "\n" not in said, said


PARAMS = {
    "a plain endpoint": ({"s3_endpoint": "http://localhost:1"}, "allow_http"),
    "half a key": ({"s3_secret": None}, "belong together"),
    "an auth that is none": ({"s3_auth": "magic"}, "iam_role"),
    "half an identity": ({"tls_certificate_file": "a.pem"}, "belong together"),
    "a param that is none": ({"s3_regoin": "x"}, "s3_region"),
    "a timeout of nothing": ({"client_timeout": "0s"}, "30s"),
}


@pytest.mark.parametrize("what", PARAMS)
def test_invalid_params(pod, s3, what):
    params, words = PARAMS[what]
    pod.yaml(datasets=[lake(pod, s3, "in/", **params)])
    assert words in pod.refuse().stderr


def test_a_lake_is_only_read(pod, s3):
    pod.yaml(tls=pod.write_pair(), datasets=[{**lake(pod, s3, "in/people.csv"), "access": "read_write"}])
    assert "cannot write" in pod.refuse().stderr


def files(folder, password: str | None = None):
    """Serves a directory with ranges (RFC 9110 §14), to clients that send the password."""

    def behave(asked):
        file = folder / unquote(asked.path).lstrip("/")
        wanted = f"Basic {base64.b64encode(f'ada:{password}'.encode()).decode()}"
        if password and asked.headers.get("Authorization") != wanted:
            return asked.answer(401, b"", **{"WWW-Authenticate": "Basic"})
        if not file.is_file():
            return asked.answer(404, b"")
        content, status, more = file.read_bytes(), 200, {"Last-Modified": "Wed, 25 Nov 2026 10:00:00 GMT", "ETag": '"1"'}
        if given := re.fullmatch(r"bytes=(\d*)-(\d*)", asked.headers.get("Range", "")):
            first, last = given.groups()
            start = int(first) if first else len(content) - int(last)
            end = min(int(last) + 1, len(content)) if first and last else len(content)
            more["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            content, status = content[start:end], 206
        if asked.command == "HEAD":
            asked.send_response(200)
            for name, value in {"Content-Length": str(len(content)), **more}.items():
                asked.send_header(name, value)
            return asked.end_headers()
        return asked.answer(status, content, "application/octet-stream", **more)

    return behave


@pytest.fixture
def site(pod, fronts, tmp_path):
    """A web server with people and many, a CA of its own, and a password."""
    folder, ca = tmp_path / "site", Authority("the site's root")
    for form in ("parquet", "csv", "ndjson"):
        data.write(data.PEOPLE, folder / f"a b/people.{form}")
    parquet.write_table(MANY, folder / "many.parquet", row_group_size=20_000)
    password = LEDGER.mark("a password of a web server")
    front = fronts(files(folder, password), ca.issue(("localhost",)))
    front.params = {"tls_ca_file": "site.pem", "http_username": "ada", "http_password": password}
    pod.write("site.pem", ca.pem)
    return front


def test_https(pod, site):
    sets = [{"from": f"{site.url}/a%20b/people.{form}", "name": form, "params": site.params} for form in ("parquet", "csv", "ndjson")]
    sets.append({"from": f"{site.url}/many.parquet", "name": "many", "params": site.params})
    pod.yaml(tls=pod.write_pair(), datasets=sets)
    server = pod.serve()
    for form in ("parquet", "csv", "ndjson"):
        assert clients.rows(server, f"SELECT id, name FROM {form} ORDER BY id") == data.PEOPLE.to_pylist(), form
    assert clients.rows(server, "SELECT name FROM many WHERE id = 150000") == [{"name": "name 150000"}]


def test_https_without_the_password(pod, site):
    del site.params["http_username"], site.params["http_password"]
    pod.yaml(tls=pod.write_pair(), datasets=[{"from": f"{site.url}/many.parquet", "name": "t", "params": site.params}])
    assert re.search("401|credentials", trouble(pod.serve()))


def test_plain_http_and_its_refusals(pod, fronts, tmp_path):
    data.write(data.PEOPLE, tmp_path / "site/people.csv")
    plain = fronts(files(tmp_path / "site"))
    pod.yaml(tls=pod.write_pair(), datasets=[{"from": f"{plain.url}/people.csv", "name": "t"}])
    server = pod.serve()
    assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 3}]
    server.close()
    for address, params, words in (
        (f"{plain.url}/people.csv", {"http_username": "a", "http_password": "b"}, "plain text"),
        (f"{plain.url}/", {}, "name a file"),
        (f"{plain.url}/people.csv?a=b", {}, "has a `?`"),
        ("https://a:b@localhost/x.csv", {}, "http_username"),
    ):
        pod.yaml(tls=pod.write_pair(), datasets=[{"from": address, "name": "t", "params": params}])
        assert words in pod.refuse().stderr, address


def test_a_store_is_not_shown_to_sql(pod, s3):
    """SQL reaches an object store only through the data set's table."""
    pod.yaml(
        tls=pod.write_pair(),
        datasets=[lake(pod, s3, "in/people.csv")],
        runtime={"sql": {"host_paths": ["."]}, "auth": {"allow_anonymous": "rw"}},
    )
    server = pod.serve()
    assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 3}]
    for place in ("dataset1://objects/in/people.parquet", "s3://lake/in/people.parquet"):
        refused = clients.sql(server, f"CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '{place}'")
        assert refused.status in (400, 403) and "people" not in refused.text.replace(place, ""), refused
