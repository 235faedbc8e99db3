"""The Kubernetes manifests: valid to the letter, tied together, and tight."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support.daemon import cdc_audit
from tests.support.prometheus import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"
KUSTOMIZATIONS = sorted(KUBERNETES.rglob("kustomization.yaml"))
OWN_KINDS = {"Kustomization", "Component", "ServiceMonitor"}  # their schemas aren't Kubernetes' own
DOCUMENTS: list[tuple[str, dict[str, Any]]] = [
    (str(path.relative_to(KUBERNETES)), document)
    for path in sorted(KUBERNETES.rglob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """File and pod specification of each workload."""
    for file, document in DOCUMENTS:
        spec = document.get("spec", {})
        if document["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            yield file, spec["template"]["spec"]


@pytest.mark.parametrize(
    ("file", "document"),
    [entry for entry in DOCUMENTS if entry[1]["kind"] not in OWN_KINDS],
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
def test_every_manifest_is_valid_without_unknown_fields(file: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    assert file


@pytest.mark.parametrize("file", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_every_kustomization_names_files_that_are_there_and_all_of_them(file: Path) -> None:
    given = yaml.safe_load(file.read_text())
    named = [*given["resources"], *(patch["path"] for patch in given.get("patches", []))]
    named += [name for maker in given.get("configMapGenerator", []) for name in maker["files"]]
    missing = [name for name in named if not (file.parent / name).exists()]
    assert not missing
    here = {path.name for path in file.parent.iterdir()} - {"kustomization.yaml"}
    assert here == {name for name in named if not name.startswith("..")}


def test_a_patch_is_for_a_resource_of_the_base() -> None:
    base = {
        (document["kind"], document["metadata"]["name"])
        for file, document in DOCUMENTS
        if file.startswith("base/") and document["kind"] != "Kustomization"
    }
    patches = [
        (document["kind"], document["metadata"]["name"])
        for file, document in DOCUMENTS
        if file.endswith("-patch.yaml")
    ]
    assert patches
    assert set(patches) <= base


def built(overlay: Path) -> list[dict[str, Any]]:
    """What kustomize makes of an overlay; all of it is valid."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not here; the tests beside this one look at each file by itself")
    done = subprocess.run([kubectl, "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    for document in documents:
        if document["kind"] not in OWN_KINDS:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    return documents


def test_kustomize_builds_the_example_and_what_it_builds_is_valid() -> None:
    documents = built(KUBERNETES / "overlays/example")
    (monitor,) = (document for document in documents if document["kind"] == "ServiceMonitor")
    (service,) = (document for document in documents if document["kind"] == "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "cdc-audit", "the job of the alerts"


def test_the_job_for_init_has_the_daemons_image_configuration_and_secret_when_the_readme_is_followed(
    tmp_path: Path,
) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/overlays/example"
    (line,) = re.findall(r"^echo '(components: .*)' >>.*$", (DEPLOY / "README.md").read_text(), re.MULTILINE)
    with (overlay / "kustomization.yaml").open("a") as file:
        file.write(f"{line}\n")
    documents = built(overlay)
    (job,) = (document for document in documents if document["kind"] == "Job")
    (deployment,) = (document for document in documents if document["kind"] == "Deployment")
    init, daemon = (document["spec"]["template"]["spec"] for document in (job, deployment))
    assert init["containers"][0]["image"] == daemon["containers"][0]["image"]
    assert job["metadata"]["namespace"] == deployment["metadata"]["namespace"]
    config, theirs = (
        next(volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume)
        for pod in (init, daemon)
    )
    assert config == theirs
    assert config in {
        document["metadata"]["name"] for document in documents if document["kind"] == "ConfigMap"
    }
    (credentials,) = (volume["projected"] for volume in init["volumes"] if "projected" in volume)
    given = [source["secret"]["name"] for source in credentials["sources"]]
    assert given == [
        *(volume["secret"]["secretName"] for volume in daemon["volumes"] if "secret" in volume),
        "cdc-audit-init",
    ]


def test_the_daemon_has_one_replica_that_is_gone_before_the_next_one_comes() -> None:
    (deployment,) = (document for _, document in DOCUMENTS if document["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    (daemon,) = deployment["spec"]["template"]["spec"]["containers"]
    assert daemon["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert daemon["startupProbe"]["httpGet"]["path"] == "/livez"
    assert daemon["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_every_pod_runs_as_nobody_reads_only_and_may_nothing() -> None:
    found = list(pods())
    assert len(found) == 4
    for file, pod in found:
        assert pod["automountServiceAccountToken"] is False, file
        assert pod["securityContext"]["runAsNonRoot"] is True, file
        assert pod["securityContext"]["runAsUser"] >= 10000, file
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, file
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, file
            assert "memory" in container["resources"]["limits"], file


def test_selectors_and_volumes_find_what_they_name() -> None:
    (service,) = (document for _, document in DOCUMENTS if document["kind"] == "Service")
    (deployment,) = (document for _, document in DOCUMENTS if document["kind"] == "Deployment")
    (budget,) = (document for _, document in DOCUMENTS if document["kind"] == "PodDisruptionBudget")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (
        service["spec"]["selector"],
        deployment["spec"]["selector"]["matchLabels"],
        budget["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    generated = {
        maker["name"]
        for file in KUSTOMIZATIONS
        for maker in yaml.safe_load(file.read_text()).get("configMapGenerator", [])
    }
    secrets = {document["metadata"]["name"] for _, document in DOCUMENTS if document["kind"] == "Secret"}
    for file, pod in pods():
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] in generated, file
            elif "secret" in volume and file.startswith("base/"):
                assert volume["secret"]["secretName"] in secrets, file
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}, file


def test_a_mounted_secret_and_configuration_are_enough_for_the_daemon(tmp_path: Path) -> None:
    """Also the signing key's text, whatever its file's mode is: Kubernetes gives it to a group."""
    made = cdc_audit("key", "generate", str(tmp_path / "signing.pem"), env={})
    assert made.returncode == 0, made.stderr
    (secret, _) = yaml.safe_load_all((KUBERNETES / "overlays/example/secret.yaml").read_text())
    secret["stringData"]["ledger_signing_key_file"] = (tmp_path / "signing.pem").read_text()
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name, value in secret["stringData"].items():
        (credentials / name).write_text(value)
        (credentials / name).chmod(0o440)
    checked = cdc_audit(
        "run",
        "--check",
        env={
            "CREDENTIALS_DIRECTORY": str(credentials),
            "CDC_AUDIT_CONFIG": str(KUBERNETES / "overlays/example/cdc-audit.toml"),
        },
    )
    assert (checked.returncode, checked.stdout) == (0, "the configuration is valid\n"), checked.stderr
