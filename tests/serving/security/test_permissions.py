from typing import get_args

from serving.security.permissions import PERMISSIONS, ROLES, Permission, Principal


def test_the_table_names_every_permission_and_no_unknown_role() -> None:
    assert set(PERMISSIONS) == set(get_args(Permission))
    assert all(roles and roles <= set(ROLES) for roles in PERMISSIONS.values())


def test_a_principal_may_what_the_table_says() -> None:
    for permission, roles in PERMISSIONS.items():
        assert {role for role in ROLES if Principal("a", role).may(permission)} == roles


def test_who_runs_the_system_reads_no_identity_and_who_sends_money_judges_none() -> None:
    assert not PERMISSIONS["identities:read"] & {"admin", "data_scientist"}
    assert not PERMISSIONS["feedback:judge"] & {"producer", "admin"}
    assert PERMISSIONS["rules:write"] == PERMISSIONS["models:change"] == {"admin"}
