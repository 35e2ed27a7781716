"""Rules for containers and their relations: names, order, volumes, logs, images, and the task's size.

The name of a function with `@rule` states what must hold, and its docstring states the violation.
A value is open if it isn't known yet, such as `${NAME}` (see values.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from task_check.finding import HINT, MISTAKE, WARNING, Violation, rule
from task_check.task import END_CONDITIONS, THIRD_PARTY, Container, TaskDefinition, image_name, is_essential, name_of
from task_check.values import MARK_END, is_open, number, quoted

# A channel, alone or after a version (latest, 7-latest), or a branch, stage or variant without a version.
MOVING_TAG = re.compile(
    r"v?\d*(?:\.\d+)*[-_.]?(?:latest|nightly|edge|canary)(?:[-_.].*)?"
    r"|(?:latest|main|master|trunk|stable|dev|devel|develop|development|edge|nightly|canary|snapshot|current|lts|rolling"
    r"|prod|production|live|staging|stage|test|testing|qa|uat|release|beta|alpha|rc|next|head|alpine|slim|bookworm|bullseye"
    r"|mainline|perl|windows|linux)(?:[-_].*)?",
    re.IGNORECASE,
)
# 7, 7.72 or 7-jmx. A full version of the Agent has three numbers.
AGENT_MOVING_TAG = re.compile(r"v?\d+(?:\.\d+)?(?:-[a-z][\w-]*)?")
# Images of languages and operating systems, whose major version alone is a moving tag, such as python:3.
OFFICIAL_IMAGE = re.compile(
    r"(?:^|/)(?:python|node|golang|openjdk|eclipse-temurin|ruby|php|debian|ubuntu|amazonlinux)$"
)
# registry:port/repository:tag@digest, of which only the repository is required.
IMAGE = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*(?::[\w][\w.-]{0,127})?(?:@sha256:[a-f0-9]{64})?"
)
ECR = re.compile(r"([^/]*)\.dkr\.ecr[.-]")  # the account id, followed by ecr or ecr-fips


@rule("names-twice", MISTAKE, "give each a name of its own")
def names_are_different(task: TaskDefinition) -> Iterator[Violation]:
    """Two containers or two volumes have the same name."""
    container_names = [name_of(container) for container in task.containers if container.get("name")]
    for name, count in Counter(container_names).items():
        if count > 1:
            yield Violation(name, f"{count} containers have the name {quoted(name)}")
    volume_names = [str(volume.get("name")) for volume in task.document.get("volumes") or []]
    for name, count in Counter(volume_names).items():
        if count > 1:
            yield Violation("", f"{count} volumes have the name {quoted(name)}")


@rule("no-essential", MISTAKE, "make the service's container essential")
def one_container_is_essential(task: TaskDefinition) -> Iterator[Violation]:
    """No container of the task is essential; ECS requires one."""
    # Only a whole task definition is checked, because a bare list of containers may be a part of one.
    if task.source.is_whole and task.containers and not any(map(is_essential, task.containers)):
        yield Violation("", "no container is essential; ECS requires one")
    if task.source.is_whole and not task.containers and not is_open(task.document.get("containerDefinitions")):
        yield Violation("", "`containerDefinitions` is empty", "add a container")


@rule("depends-on-unknown", MISTAKE, "use the name of a container in this task definition")
def dependencies_exist(task: TaskDefinition) -> Iterator[Violation]:
    """`dependsOn`, `volumesFrom`, `links` or `proxyConfiguration` refers to a container that does not exist."""
    is_partly_open = is_open(task.document.get("containerDefinitions"))
    proxy = str((task.document.get("proxyConfiguration") or {}).get("containerName", ""))
    if proxy and task.container(proxy) is None and not is_open(proxy) and not is_partly_open:
        yield Violation("", f"`proxyConfiguration` refers to {quoted(proxy)}, which is not a container of this task")
    for container in task.containers:
        references = [("dependsOn", entry.get("containerName", "")) for entry in container.get("dependsOn") or []]
        references += [
            ("volumesFrom", entry.get("sourceContainer", "")) for entry in container.get("volumesFrom") or []
        ]
        if not task.on_fargate:  # Fargate rejects every link anyway
            references += [("links", link.partition(":")[0]) for link in container.get("links") or []]
        for field, name in references:
            if name and task.container(name) is None and not is_open(name) and not is_partly_open:
                yield Violation(
                    name_of(container),
                    f"`{field}` refers to {quoted(name)}, which is not a container of this task",
                )


@rule(
    "depends-on-never",
    MISTAKE,
    "HEALTHY needs a healthCheck there; COMPLETE and SUCCESS need essential: false; START always works",
)
def dependencies_can_be_met(task: TaskDefinition) -> Iterator[Violation]:
    """A condition in `dependsOn` can't be met: HEALTHY without a health check, or the end of an essential container."""
    for container, dependency_name, condition in task.dependencies:
        dependency, name = task.container(dependency_name), name_of(container)
        if dependency is None or dependency is container:
            continue
        quoted_name = quoted(dependency_name)
        health_check = (dependency.get("healthCheck") or {}).get("command") or []
        if condition == "HEALTHY" and (not dependency.get("healthCheck") or health_check == ["NONE"]):
            yield Violation(name, f"waits for {quoted_name} to be HEALTHY, but {quoted_name} has no `healthCheck` here")
        if condition in END_CONDITIONS and is_essential(dependency):
            sentence = f"waits for the end of {quoted_name}, which is essential: its end stops the task"
            yield Violation(name, sentence, f'make {dependency_name} "essential": false')


@rule("depends-on-cycle", MISTAKE, "remove one of these dependencies")
def dependencies_form_no_cycle(task: TaskDefinition) -> Iterator[Violation]:
    """Containers depend on each other in a cycle, so none of them starts."""
    dependencies: dict[str, list[str]] = {}
    for container, dependency, _ in task.dependencies:
        dependencies.setdefault(name_of(container), []).append(dependency)
    reported: set[frozenset[str]] = set()  # a cycle is found once from each of its containers
    for start in dependencies:
        pending = [[start]]
        while pending:
            path = pending.pop()
            for name in dependencies.get(path[-1], []):
                if name == start and frozenset(path) not in reported:
                    reported.add(frozenset(path))
                    yield Violation(start, "depends on itself: " + " -> ".join([*path, start]))
                elif name not in path:
                    pending.append([*path, name])


def dependency_is_reported(task: TaskDefinition, container: Container) -> bool:
    """Return whether a dependency of `container` is unknown or part of a cycle, which a rule above reports."""
    for dependent, dependency_name, _ in task.dependencies:
        if dependent is container:
            dependency = task.container(dependency_name)
            if dependency is None or task.depends_on_any(dependency, {name_of(container)}):
                return True
    return False


@rule("mount-without-volume", MISTAKE, "add the volume to `volumes`, or remove the mount")
def every_mount_has_a_volume(task: TaskDefinition) -> Iterator[Violation]:
    """A `mountPoint`'s volume is not in `volumes`, its path is not absolute, or two mounts have the same path."""
    for container in task.containers:
        name, paths = name_of(container), Counter[str]()
        for mount in container.get("mountPoints") or []:
            source, path = str(mount.get("sourceVolume", "")), str(mount.get("containerPath", ""))
            has_volume = source in task.volumes or is_open(source) or is_open(task.document.get("volumes"))
            if source and not has_volume and task.source.is_whole:
                sentence = f"mounts the volume {quoted(source)} at {quoted(path)}, but `volumes` has no such volume"
                yield Violation(name, sentence)
            # On Windows, a path begins with a drive or, if it is a pipe, with \\.
            if path and not is_open(path) and not re.match(r"/|[A-Za-z]:|\\\\", path):
                yield Violation(name, f"`containerPath` {quoted(path)} is not absolute", "start it with /")
            paths[path] += 1
        for path, count in paths.items():
            if path and count > 1:
                yield Violation(name, f"mounts {count} volumes at {quoted(path)}", "keep one of them")


@rule("firelens-router", MISTAKE, 'add a container with "firelensConfiguration": {"type": "fluentbit"}')
def firelens_has_a_router(task: TaskDefinition) -> Iterator[Violation]:
    """The log driver `awsfirelens` is used without a log router, with two, or by the router itself."""
    if is_open(task.document.get("containerDefinitions")):
        return
    firelens_containers = [
        container
        for container in task.containers
        if (container.get("logConfiguration") or {}).get("logDriver") == "awsfirelens"
    ]
    if firelens_containers and not task.firelens_routers:
        names = ", ".join(map(name_of, firelens_containers))
        yield Violation(names, "logs go to `awsfirelens`, and no container has `firelensConfiguration`")
    if len(task.firelens_routers) > 1:
        yield Violation(
            "", f"{len(task.firelens_routers)} containers have `firelensConfiguration`; ECS allows one", "keep one"
        )
    for container in firelens_containers:
        if container in task.firelens_routers:
            yield Violation(name_of(container), "the log router sends its own log to `awsfirelens`", "use awslogs")


@rule("firelens-datadog", MISTAKE, 'add {"name": "apikey", "valueFrom": "<ARN of the secret>"} to `secretOptions`')
def firelens_reaches_datadog(task: TaskDefinition) -> Iterator[Violation]:
    """Fluent Bit's `datadog` output has no `apikey`, or its `Host` belongs to another site than the Agent's."""
    sites = {
        str(entry.get("value"))
        for agent in task.agents
        for entry in agent.get("environment") or []
        if entry.get("name") == "DD_SITE"
    }
    for container in task.containers if task.firelens_routers else []:
        log = container.get("logConfiguration") or {}
        options = {name.lower(): str(value) for name, value in (log.get("options") or {}).items()}
        if log.get("logDriver") != "awsfirelens" or options.get("name") != "datadog":
            continue
        secret_options = {str(option.get("name")).lower() for option in log.get("secretOptions") or []}
        if "apikey" not in secret_options | options.keys() and not is_open(log.get("secretOptions")):
            yield Violation(name_of(container), "the log's output `datadog` has no `apikey`")
        host, site = options.get("host", ""), next(iter(sites), "datadoghq.com")
        are_known = len(sites) <= 1 and not is_open(host) and not is_open(site)
        # With `.logs.`, because http-intake.logs.us5.datadoghq.com also ends with the site datadoghq.com.
        if are_known and re.search(r"\.(?:datadoghq|ddog-gov)\.", host) and not host.endswith(f".logs.{site}"):
            sentence = f"logs go to {quoted(host)}, but the Agent's site is {quoted(site)}"
            yield Violation(name_of(container), sentence, f'write "http-intake.logs.{site}"')


@rule("image", MISTAKE, "write registry/repository:tag")
def an_image_is_a_reference(task: TaskDefinition) -> Iterator[Violation]:
    """The image is not a valid reference, or its ECR registry has no account id."""
    for container in task.containers:
        image = str(container.get("image", ""))
        if not image or is_open(image):
            continue
        if (match := ECR.match(image)) and not re.fullmatch(r"\d{12}", match[1]):
            yield Violation(name_of(container), f"the image {quoted(image)} has no account id of 12 digits")
            continue
        if not IMAGE.fullmatch(image):
            yield Violation(name_of(container), f"the image {quoted(image)} is not a valid reference")


@rule("moving-tag", WARNING, "pin a full version, or a digest (@sha256:...)")
def images_are_pinned(task: TaskDefinition) -> Iterator[Violation]:
    """The image's tag can move, so tasks may run different code."""
    for container in task.containers:
        image = str(container.get("image", ""))
        last_part = image.rpartition("/")[2]
        known_part = image.partition(MARK_END)[2] or image  # an open registry ends with MARK_END
        if not image or is_open(last_part) or "@" in last_part or not IMAGE.fullmatch(known_part):
            continue
        program, _, tag = last_part.partition(":")
        is_public = OFFICIAL_IMAGE.search(image_name(container)) or (
            THIRD_PARTY.fullmatch(program) and ".dkr.ecr." not in image
        )
        # These move with each release: 7 or 7.72 of the Agent, and a major version alone, such as python:3. Other images
        # may have full versions of two numbers, such as debian:12.5.
        is_partial = ("agent" in program and AGENT_MOVING_TAG.fullmatch(tag)) or (
            is_public and re.fullmatch(r"\d+(?:-[a-z][\w.-]*)?", tag)
        )
        if not tag:
            yield Violation(name_of(container), f"{quoted(image)} has no tag, which means `latest`")
        elif MOVING_TAG.fullmatch(tag) or is_partial:
            yield Violation(name_of(container), f"the tag of {quoted(image)} can move, so tasks may run different code")


@rule("memory", MISTAKE, "give the task more memory, or its containers less")
def containers_fit_the_tasks_memory(task: TaskDefinition) -> Iterator[Violation]:
    """Containers have more memory than the task, or a reservation above the limit."""
    task_memory = number(task.document.get("memory"))
    is_reported = False  # whether a container with too much memory is reported, which the sum would only repeat
    for container in task.containers:
        limit, reserved = number(container.get("memory")), number(container.get("memoryReservation"))
        if limit and reserved and reserved > limit:
            sentence = f"`memoryReservation` {reserved:g} MiB is above `memory` {limit:g} MiB"
            yield Violation(name_of(container), sentence, "make it smaller")
            is_reported = True
        elif task_memory and (limit or 0) > task_memory:
            yield Violation(name_of(container), f"`memory` {limit:g} MiB is above the task's {task_memory:g} MiB")
            is_reported = is_reported or not reserved  # in the sum, a reservation replaces the limit
    total = sum(
        number(container.get("memoryReservation") or container.get("memory")) or 0 for container in task.containers
    )
    if task_memory and total > task_memory and not is_reported:
        yield Violation("", f"the containers reserve {total:g} MiB, and the task has {task_memory:g} MiB")


@rule("cpu", MISTAKE, "give the task more CPU, or its containers less")
def containers_fit_the_tasks_cpu(task: TaskDefinition) -> Iterator[Violation]:
    """Containers have more CPU units than the task."""
    task_units = number(task.document.get("cpu"))
    total = sum(number(container.get("cpu")) or 0 for container in task.containers)
    if task_units and total > task_units:
        yield Violation("", f"the containers have {total:g} CPU units, and the task has {task_units:g}")


@rule("health-check", MISTAKE, 'write ["CMD", "program", "argument"] or ["CMD-SHELL", "command line"]')
def a_health_check_is_well_formed(task: TaskDefinition) -> Iterator[Violation]:
    """The health check's `command` does not start with CMD or CMD-SHELL, or has the wrong number of words."""
    for container in task.containers:
        check, name = container.get("healthCheck") or {}, name_of(container)
        if not check or is_open(check.get("command")):
            continue
        words = [str(word) for word in check.get("command") or []]
        if not words or words[0] not in {"CMD", "CMD-SHELL", "NONE"}:
            yield Violation(name, f"the health check {quoted(' '.join(words))} does not start with CMD or CMD-SHELL")
        elif len(words) == 1 and words[0] != "NONE":
            yield Violation(name, f"the health check has no command after {words[0]}")
        elif words[0] == "CMD" and len(words) == 2 and " " in words[1]:
            yield Violation(
                name, f"CMD runs {quoted(words[1])} as the name of one program", "use CMD-SHELL, or split it"
            )
        elif words[0] == "CMD-SHELL" and len(words) > 2:
            yield Violation(
                name, f"CMD-SHELL runs only {quoted(words[1])}; the words after it are lost", "join them in one string"
            )


@rule(
    "health-check-program",
    HINT,
    'if it lacks the program: ["CMD", "python", "-c", "..."], for the Agent ["CMD-SHELL", "agent health"]',
)
def a_health_check_needs_no_curl(task: TaskDefinition) -> Iterator[Violation]:
    """The health check needs curl or wget, which slim images lack."""
    for container in task.containers:
        line = " ".join(map(str, (container.get("healthCheck") or {}).get("command") or []))
        match = re.search(r"\b(curl|wget)\b", line)
        if not match:
            continue
        program, image = match[1], str(container.get("image"))
        # Alpine has wget. An image with a path may be the user's own, with more programs, unless it is Google's.
        lacks_program = re.search(r"slim|distroless|scratch" + ("|alpine" if program == "curl" else ""), image)
        if lacks_program and "/" not in image.removeprefix("gcr.io/distroless/"):
            sentence = f"the health check needs {program}, which {quoted(image)} does not have"
            yield Violation(name_of(container), sentence, level=WARNING)
        else:
            yield Violation(name_of(container), f"the health check needs {program}; make sure that the image has it")
