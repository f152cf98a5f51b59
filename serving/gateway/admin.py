"""What steers the running jobs, by the functions that the command line uses; every change is audited."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path as FolderPath
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from events.codec import Decoder
from events.control import Reason, Rule
from events.invalid import Invalid
from events.strict_json import parse
from events.types import IDENTIFIER_PATTERN, Identifier, Prose, epoch_ms
from models import registry
from models.registry import RegistryError
from serving import control
from serving.control import Held, Sent
from serving.errors import ControlError, NotFoundError
from serving.gateway import openapi
from serving.gateway.access import permitted
from serving.gateway.folders import tokens_folder
from serving.gateway.ingest import JSON, is_avro, media_type
from serving.gateway.problems import FieldError, Problem
from serving.gateway.services import Services, services_of
from serving.security.audit import Act, AuditError, AuditTrail, Head, verify
from serving.security.permissions import Permission, Principal
from serving.security.personal import USER, SealError
from serving.security.tokens import revoke

router = APIRouter()

Record = TypeVar("Record", bound=msgspec.Struct)

Name = Annotated[str, Path(pattern=IDENTIFIER_PATTERN, max_length=128)]


class LearnerCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As `events.control.OnlineCommand`, without what the gateway adds."""

    command: Literal["promote", "rollback", "freeze", "unfreeze"]
    reason: Prose | None = None


class SafeModeReason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why safe mode shall begin; who and when the gateway adds."""

    reason: Reason


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sealed identity, as predictions show it to those who may not read it."""

    sealed: str


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `jti` of a token."""

    token_id: Identifier


_COMMANDS, _REASONS = Decoder(LearnerCommand), Decoder(SafeModeReason)
_SEALED, _REVOCATIONS = Decoder(Sealed), Decoder(Revocation)


class Steering:
    """The principal of a request, with what an endpoint needs to act for it."""

    def __init__(self, request: Request, principal: Principal, services: Services) -> None:
        self.request, self.principal, self.services = request, principal, services

    def audited(self, action: str, target: str | None) -> AbstractContextManager[None]:
        """As `audited`, for the principal of this request."""
        correlation_id = self.request.scope["correlation_id"]
        act = Act(self.principal.subject, self.principal.role, action, target, correlation_id)
        return audited(self.services.audit, act)


@contextmanager
def audited(trail: AuditTrail, act: Act) -> Iterator[None]:
    """Put down what is asked for before it is done, and what became of it. Raises AuditError."""
    trail.append(act, "requested")
    try:
        yield
    except (ControlError, Problem) as error:
        trail.append(act, "refused", str(error))
        raise
    except Exception as error:
        trail.append(act, "failed", type(error).__name__)
        raise
    trail.append(act, "done")


def steering(permission: Permission) -> Any:
    """A dependency: what an endpoint for this permission acts with."""

    def build(
        request: Request,
        principal: Annotated[Principal, Depends(permitted(permission))],
        services: Annotated[Services, Depends(services_of)],
    ) -> Steering:
        return Steering(request, principal, services)

    return Depends(build)


async def json_body(request: Request) -> bytes:
    """The body. Raises Problem where it is said to be anything but JSON."""
    media_type(request, JSON)
    return await request.body()


# The body comes after the principal: nobody unknown has one read.
Body = Annotated[bytes, Depends(json_body)]


@router.get("/rules", tags=["rules"], **openapi.RULES)
def list_rules(by: Annotated[Steering, steering("rules:read")]) -> Response:
    """All rules that the topic holds, with what jobs make of them."""
    held = control.held_rules(by.services.topics)
    return _json([_described(rule_id, one) for rule_id, one in sorted(held.items())])


@router.get("/rules/{rule_id}", tags=["rules"], **openapi.RULE)
def show_rule(rule_id: Name, by: Annotated[Steering, steering("rules:read")]) -> Response:
    """One rule, whole."""
    return _json(_described(rule_id, control.one_rule(control.held_rules(by.services.topics), rule_id)))


@router.put("/rules/{rule_id}", tags=["rules"], **openapi.PUT_RULE)
def put_rule(rule_id: Name, by: Annotated[Steering, steering("rules:write")], body: Body) -> Response:
    """Set a rule, or a newer version of it, in all running jobs; the owner is who asks."""
    with by.audited("rules.put", rule_id):
        topics = by.services.topics
        members = _object(body)
        for name, value in (("rule_id", rule_id), ("owner", by.principal.subject)):
            if members.setdefault(name, value) != value:
                raise ControlError(f"{name}: is {value} and cannot be set")
        held = control.held_rules(topics)
        members.setdefault("version", control.next_version(held, rule_id))
        rule = control.checked(msgspec.json.encode(members), Rule)
        payload = control.rule_record(control.ruleset_of(held), rule, control.now_ms())
        return _told(control.send_rule(topics, rule, payload))


@router.post("/rules/{rule_id}/{switch}", tags=["rules"], **openapi.TOLD)
def switch_rule(
    rule_id: Name,
    switch: Literal["enable", "disable", "live", "shadow"],
    by: Annotated[Steering, steering("rules:write")],
) -> Response:
    """Switch a rule on or off, or let it decide or only report; enabling leaves the mode as it was."""
    members = {
        "enable": {"enabled": True},
        "disable": {"enabled": False},
        "live": {"enabled": True, "shadow": False},
        "shadow": {"enabled": True, "shadow": True},
    }[switch]
    with by.audited(f"rules.{switch}", rule_id):
        return _told(control.switch_rule(by.services.topics, rule_id, **members))


@router.delete("/rules/{rule_id}", tags=["rules"], **openapi.TOLD)
def delete_rule(rule_id: Name, by: Annotated[Steering, steering("rules:write")]) -> Response:
    """Delete a rule from the topic and all running jobs."""
    with by.audited("rules.delete", rule_id):
        return _told(control.delete_rule(by.services.topics, rule_id))


@router.get("/models", tags=["models"], **openapi.MODELS)
def list_models(by: Annotated[Steering, steering("models:read")]) -> Response:
    """The artefacts of the registry, the newest first, and which of them is promoted."""
    services = by.services
    current = control.in_force(services.topics, "model")
    found = [
        {
            "version": entry.manifest.model_version if entry.manifest else None,
            "created_at": entry.manifest.created_at if entry.manifest else None,
            "signed_by": entry.signed_by,
            "problem": entry.problem,
            "promoted": current is not None and current.artefact == str(entry.folder.resolve()),
        }
        for entry in _found(lambda: registry.entries(services.settings.registry, services.keyring))
    ]
    return _json(found)


@router.post("/models/rollback", tags=["models"], **openapi.TOLD)
def roll_back(by: Annotated[Steering, steering("models:change")]) -> Response:
    """Load in all running jobs what was promoted before; once more goes a step further back."""
    with by.audited("models.rollback", None):
        return _told(control.roll_back(by.services.topics, by.services.keyring, by.principal.subject))


@router.post("/models/{version}/promote", tags=["models"], **openapi.TOLD)
def promote(version: Name, by: Annotated[Steering, steering("models:change")]) -> Response:
    """Load an artefact of the registry in all running jobs."""
    with by.audited("models.promote", version):
        services = by.services
        folder = find_version(services, version)
        return _told(control.promote(services.topics, folder, services.keyring, by.principal.subject))


@router.post("/learner/commands", tags=["models"], **openapi.LEARNER)
def command_learner(by: Annotated[Steering, steering("learner:command")], body: Body) -> Response:
    """Tell the online learner to promote what it has learnt, to roll back, or to freeze promotions."""
    given = _decoded(body, _COMMANDS)
    with by.audited(f"learner.{given.command}", None):
        return _told(
            control.command_learner(by.services.topics, given.command, by.principal.subject, given.reason)
        )


@router.get("/admin/safe-mode", tags=["safe mode"], **openapi.SAFE_MODE)
def safe_mode(by: Annotated[Steering, steering("safe-mode:switch")]) -> Response:
    """Whether running jobs are told to decide without their models; why, since when and by whom."""
    update = control.safe_mode(by.services.topics)
    if update is None:
        return _json({"on": False, "reason": None, "issued_by": None, "issued_at": None})
    return _json(
        {
            "on": True,
            "reason": update.reason,
            "issued_by": update.issued_by,
            "issued_at": epoch_ms(update.issued_at),
        }
    )


@router.put("/admin/safe-mode", tags=["safe mode"], **openapi.BEGIN_SAFE_MODE)
def begin_safe_mode(by: Annotated[Steering, steering("safe-mode:switch")], body: Body) -> Response:
    """Let the heuristic and the rules decide in all running jobs; no score blocks, what would is reviewed."""
    given = _decoded(body, _REASONS)
    with by.audited("safe-mode.on", None):
        return _told(control.begin_safe_mode(by.services.topics, given.reason, by.principal.subject))


@router.delete("/admin/safe-mode", tags=["safe mode"], **openapi.END_SAFE_MODE)
def end_safe_mode(by: Annotated[Steering, steering("safe-mode:switch")]) -> Response:
    """Let the models decide again."""
    with by.audited("safe-mode.off", None):
        return _told(control.end_safe_mode(by.services.topics))


@router.post("/identities/open", tags=["identities"], **openapi.OPEN)
def open_identity(by: Annotated[Steering, steering("identities:reveal")], body: Body) -> Response:
    """The user behind a sealed identity; who opened it stands in the audit trail, by the pseudonym."""
    given = _decoded(body, _SEALED)
    try:
        user = by.services.seals.open(USER, given.sealed)
    except SealError as error:
        raise Problem(422, "not-sealed-here", str(error)) from error
    with by.audited("identities.open", by.services.pseudonyms.of(USER, user)):
        return _json({"user_id": user})


@router.post("/tokens/revocations", tags=["tokens"], **openapi.REVOKE)
def revoke_token(by: Annotated[Steering, steering("tokens:revoke")], body: Body) -> Response:
    """Let a token prove nothing from now on."""
    given = _decoded(body, _REVOCATIONS)
    with by.audited("tokens.revoke", given.token_id):
        revoke(tokens_folder(by.services.settings.gateway_keys), given.token_id)
        return _json({"revoked": given.token_id})


@router.get("/audit", tags=["audit"], **openapi.AUDIT)
def verify_audit(
    by: Annotated[Steering, steering("audit:verify")],
    number: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    hash: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,  # noqa: A002 - the parameter's name
) -> Response:
    """Verify the trail, also against a head noted before; the answer is its head, to be noted elsewhere."""
    if (number is None) != (hash is None):
        raise Problem(422, "invalid", "number and hash come together")
    expected = None if number is None or hash is None else Head(number, hash)
    try:
        head = verify(by.services.settings.gateway_audit, expected)
    except AuditError as error:
        place = str(error).rpartition("/")[2]
        return _json({"intact": False, "problem": place, "number": None, "hash": None})
    return _json({"intact": True, "problem": None, "number": head.number, "hash": head.hash})


def find_version(services: Services, version: str) -> FolderPath:
    """The folder of a model. Raises NotFoundError."""
    found: FolderPath = _found(
        lambda: registry.find_version(services.settings.registry, version, services.keyring)
    )
    return found


def _described(rule_id: str, one: Held) -> dict[str, Any]:
    rule = {} if one.rule is None else msgspec.to_builtins(one.rule)
    return {"rule_id": rule_id, "state": one.state, "refused": one.refused} | rule


def _found(look: Any) -> Any:
    try:
        return look()
    except RegistryError as error:
        raise NotFoundError("the registry has no such model, or several") from error


def _object(body: bytes) -> dict[str, Any]:
    """The members of the one object that a body is; what is wrong with it is told as for any record."""
    tree = parse(body)
    if isinstance(tree, Invalid):
        raise Problem(422, "invalid", "the body is not valid", errors=[FieldError.of(tree)])
    try:
        members: dict[str, Any] = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Problem(422, "malformed-json", str(error)) from error
    return members


def _decoded(body: bytes, decoder: Decoder[Record]) -> Record:
    # Strictly, for the other way is not safe for several threads.
    record = decoder.decode_strictly(b"" if is_avro(body) else body)
    if isinstance(record, Invalid):
        raise Problem(422, "invalid", "the body is not valid", errors=[FieldError.of(record)])
    return record


def _told(sent: Sent) -> Response:
    return _json({"told": sent.what, "place": sent.place})


def _json(document: Any) -> Response:
    return Response(msgspec.json.encode(document), media_type=JSON)
