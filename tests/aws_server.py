"""Runs moto's AWS API, and adds CloudFormation features that deploy/stack.yaml needs and moto lacks.

It takes the command-line options of moto_server.
"""

from __future__ import annotations

import sys
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.models import ChangeSet, CloudFormationBackend, Stack
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.common_models import CloudFormationModel
from moto.core.responses import ActionResult
from moto.ecr.models import Repository, ecr_backends
from moto.ecs.models import Service
from moto.secretsmanager.models import secretsmanager_backends
from moto.server import main


class Secret(CloudFormationModel):  # type: ignore[misc]  # mypy doesn't analyze moto, so its classes are Any
    """AWS::SecretsManager::Secret, created in moto's Secrets Manager under the name that the stack generates."""

    __module__ = "moto.secretsmanager.models"  # moto derives a model's AWS service from it

    def __init__(self, arn: str) -> None:
        self.physical_resource_id = arn

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""  # deploy/stack.yaml gives the secret no name, so moto generates one

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SecretsManager::Secret"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr == "Id"  # the only attribute of a secret in CloudFormation

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: Any
    ) -> Secret:
        properties = cloudformation_json["Properties"]
        backend = secretsmanager_backends[account_id][region_name]
        backend.create_secret(
            name=resource_name,
            secret_string=None,
            secret_binary=None,
            description=properties["Description"],
            tags=[],
            kms_key_id=None,
            client_request_token=None,
            replica_regions=[],
            force_overwrite=False,
        )
        return cls(backend.describe_secret(resource_name).arn)

    @classmethod
    def update_from_cloudformation_json(cls, original_resource: Secret, *_: Any, **__: Any) -> Secret:
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, _resource: dict[str, Any], account_id: str, region_name: str
    ) -> None:
        backend = secretsmanager_backends[account_id][region_name]
        backend.delete_secret(resource_name, recovery_window_in_days=None, force_delete_without_recovery=True)

    def is_created(self) -> bool:
        return True


def with_default_count(create: Any) -> Any:
    """Wrap `create` so that a service without DesiredCount gets one task, as in CloudFormation. moto starts none."""

    def create_from_cloudformation_json(name: str, resource: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        resource["Properties"].setdefault("DesiredCount", 1)
        return create(name, resource, *arguments, **options)

    return create_from_cloudformation_json


class AbsentResource:
    """A placeholder for a resource whose condition is false."""

    physical_resource_id = ""

    def delete(self, *_: str) -> None:
        """Do nothing."""


def restrict_updates() -> None:
    """Restrict the update of a stack to resources that exist and can be updated.

    moto drops a resource that it can't update. It also tries to update a resource that was never created because its
    condition is false.
    """

    def restrict(update: Any) -> Any:
        can_update = not hasattr(update, "__isabstractmethod__")  # the base class's method is abstract

        def update_from_cloudformation_json(_cls: Any, /, original_resource: Any, **options: Any) -> Any:
            if original_resource is None:
                return AbsentResource()
            return update(original_resource=original_resource, **options) if can_update else original_resource

        return classmethod(update_from_cloudformation_json)

    for model in parsing.get_model_map().values():
        model.update_from_cloudformation_json = restrict(model.update_from_cloudformation_json)


def delete_with_images(repository: Repository, account_id: str, region_name: str) -> None:
    """Delete a repository with its images. The template's EmptyOnDelete requires this, but moto does not support it."""
    ecr_backends[account_id][region_name].delete_repository(repository.name, repository.registry_id, force=True)


def with_default_parameters(resolve: Any) -> Any:
    """Wrap `resolve` so that a parameter without a previous value keeps its default. moto fails in this case."""

    def resolve_update_parameters(self: Any, instance: Any, incoming_params: Any) -> Any:
        for name, value in instance.stack_parameters.items():
            instance.parameters.setdefault(name, value)
        return resolve(self, instance, incoming_params)

    return resolve_update_parameters


def parameters_as_text(stack: Any) -> dict[str, str]:
    """Return the stack's parameters as text, with lists joined by commas, as in AWS's API. moto has Python lists."""
    resolved = stack.resource_map.resolved_parameters
    return {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in resolved.items()}


def with_outputs(apply: Any) -> Any:
    """Wrap `apply` so that a change set also sets the outputs of its stack. moto doesn't set them."""

    def apply_with_outputs(self: Any) -> None:
        apply(self)
        self.stack.template_dict = self.template_dict
        self.stack.output_map = self.stack._create_output_map()

    return apply_with_outputs


def update_termination_protection(self: CloudFormationResponse) -> ActionResult:
    """Handle UpdateTerminationProtection, which moto lacks."""
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    stack.enable_termination_protection = self._get_bool_param("EnableTerminationProtection")
    return ActionResult({"StackId": stack.stack_id})


if __name__ == "__main__":
    # moto finds `Secret` among the subclasses of `CloudFormationModel`.
    assert Secret.cloudformation_type() in parsing.get_model_map()
    restrict_updates()
    resolve = CloudFormationBackend._resolve_update_parameters
    CloudFormationBackend._resolve_update_parameters = with_default_parameters(resolve)
    Stack.stack_parameters = property(parameters_as_text)
    ChangeSet.apply = with_outputs(ChangeSet.apply)
    CloudFormationResponse.update_termination_protection = update_termination_protection
    Repository.delete = delete_with_images
    Service.create_from_cloudformation_json = with_default_count(Service.create_from_cloudformation_json)
    main(sys.argv[1:])
