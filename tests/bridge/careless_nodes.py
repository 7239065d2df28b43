"""What could be wrong with a node: the text of kz_node.c or kz_channel.c, and what a careless hand made of it.

The proofs must be able to fail: each finds a violation in every node of these that it is asked about.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["CARELESS", "NODE", "careless"]

C = Path(__file__).parents[2] / "firmware_bridge" / "c"
NODE = ("kz_node.c", "kz_channel.c")

CARELESS = {
    "ARM with any nonce": ("if (nonce != n->nonce) return KZ_ACK_WRONG_NONCE;\n  if (hash", "if (hash"),
    "CLEAR with any nonce": ("if (nonce != n->nonce) return KZ_ACK_WRONG_NONCE;\n  if (n->inputs", "if (n->inputs"),
    "ARM with any limits": ("if (hash != n->limits_hash) return KZ_ACK_WRONG_LIMITS_HASH;", ""),
    "ARM from FAILSAFE": (
        "if (n->state != KZ_STATE_READY) return KZ_ACK_WRONG_STATE;",
        "if (n->state != KZ_STATE_READY && n->state != KZ_STATE_FAILSAFE) return KZ_ACK_WRONG_STATE;",
    ),
    "ARM again after a COMMAND": (
        "!n->commanded && !n->stopping && seq == n->arm_seq",
        "!n->stopping && seq == n->arm_seq",
    ),
    "ARM again with another seq": ("&& seq == n->arm_seq && nonce", "&& nonce"),
    "the nonce is kept": ("n->session = 0;\n  n->nonce = fresh(n);", "n->session = 0;"),
    "CLEAR while the button is pressed": ("if (n->inputs & KZ_IN_ESTOP) return KZ_ACK_ESTOP_INPUT;", ""),
    "CLEAR without a measurement": ("if (!measured(n)) return KZ_ACK_NO_MEASUREMENT;", ""),
    "CLEAR in motion": ("if (!at_rest(n) || (n->moving", "if ((n->moving"),
    "CLEAR while it falls": (" || (n->moving & (uint16_t)~n->enabled)", ""),
    "CLEAR again has an effect": (
        "&& nonce == n->cleared_with) return KZ_ACK_OK; /* lost ACK */",
        "&& nonce == n->cleared_with) return enter_ready(n), KZ_ACK_OK;",
    ),
    "COMMAND of any session": ("len < 4 || kz_get32(p) != n->session ||", ""),
    "COMMAND of the last half second": (
        "if (n->now - obs >= (uint32_t)ttl * 1000u) {",
        "if (n->now - obs >= 500000u) {",
    ),
    "COMMAND with any ttl": ("if (ttl > n->ttl_max_ms) ttl = n->ttl_max_ms;", ""),
    "COMMAND twice": ("(seq - n->command_seq) <= 0", "(seq - n->command_seq) < 0"),
    "COMMAND with a seq half round": ("(int16_t)(uint16_t)(seq - n->command_seq) <= 0", "seq == n->command_seq"),
    "COMMAND from the future": (") ||\n      !reached(n->now, obs)) {", ")) {"),
    "COMMAND with an older observation": (" || !reached(obs, n->last_obs)", ""),
    "COMMAND while it stops": ("n->state != KZ_STATE_ARMED || n->stopping ||", "n->state != KZ_STATE_ARMED ||"),
    "COMMAND of any length": (" || len != 10 + 4 * channels) {", ") {"),
    "INVALID is a number": ("== 0x80000000u", "== 0x80000001u"),
    "the TTL counts from arrival": ("n->deadline = obs + ", "n->deadline = n->now + "),
    "the TTL ends one tick late": ("if (reached(n->now, n->deadline))", "if (reached(n->now, n->deadline + 1))"),
    "no first COMMAND is needed": ("else if (n->now - n->armed_at >= (uint32_t)n->arm_ttl_ms * 1000u)", "else if (0)"),
    "FAILSAFE applies what came before": (
        "n->stopping = n->pending_valid = n->commanded = n->retreating = 0;",
        "n->stopping = n->retreating = 0;",
    ),
    "FAILSAFE from ESTOP": (
        "if (n->state == KZ_STATE_READY || n->state == KZ_STATE_ARMED) end_session",
        "if (n->state != KZ_STATE_INIT) end_session",
    ),
    "ESTOP not from INIT": (
        "if (n->state == KZ_STATE_ESTOP) return;",
        "if (n->state == KZ_STATE_ESTOP || n->state == KZ_STATE_INIT) return;",
    ),
    "ESTOP leaves the torque on": ("if (!(n->brake_first & bit(i))) cut(n, i);", ";"),
    "ESTOP never cuts after braking": ("n->state == KZ_STATE_ESTOP && rests(n, i)", "0"),
    "ESTOP of this major only": (
        "if (type == KZ_MSG_ESTOP) {",
        "if (type == KZ_MSG_ESTOP && n->rx.body[1] >> 4 == 1) {",
    ),
    "any major": ("if (n->rx.body[1] >> 4 != KZ_PROTOCOL_MAJOR) {", "if (0) {"),
    "the button is not looked at": ("if (n->inputs & KZ_IN_ESTOP) enter_estop(n, KZ_FAULT_ESTOP_LOCAL);", ""),
    "actuator faults are not looked at": (
        "if (n->inputs & KZ_IN_ACTUATOR_FAULT) enter_failsafe(n, KZ_FAULT_ACTUATOR);",
        "",
    ),
    "sensor faults are not looked at": ("if (!measured(n)) enter_failsafe(n, KZ_FAULT_SENSOR);", ""),
    "limits while armed": (
        "if (n->state != KZ_STATE_INIT && n->state != KZ_STATE_READY) return KZ_ACK_WRONG_STATE;\n  period",
        "period",
    ),
    "limits without COMMIT": (
        "n->staged |= bit(p[0]);",
        "n->staged |= bit(p[0]);\n  n->channel[p[0]] = c;",
    ),
    "COMMIT with any hash": ("hash == 0 || hash != kz_get32(p + 12)", "hash == 0"),
    "COMMIT without a measurement": (
        "if (n->state == KZ_STATE_READY || measured(n)) enter_ready(n);",
        "enter_ready(n);",
    ),
    "COMMIT keeps the nonce": (
        "if (n->state == KZ_STATE_READY || measured(n)) enter_ready(n);",
        "if (n->state == KZ_STATE_INIT && measured(n)) enter_ready(n);",
    ),
    "COMMIT of the same starts anew": ("if (hash == n->limits_hash) return KZ_ACK_OK;", ""),
    "DISARM in motion": ("n->pending_valid = 0;\n    if (at_rest(n)) enter_ready(n);", "enter_ready(n);"),
    "DISARM never ends": ("if (n->stopping && at_rest(n)) enter_ready(n);", ""),
    "endless coasting": ("(n->budget_used < n->miss_budget ? KZ_IDLE_COAST : KZ_IDLE_BRAKE)", "KZ_IDLE_COAST"),
    "no coasting": ("(n->budget_used < n->miss_budget ? KZ_IDLE_COAST : KZ_IDLE_BRAKE)", "KZ_IDLE_BRAKE"),
    "braking renews the budget": ("if (!moving || !braking) n->budget_used = 0;", "n->budget_used = 0;"),
    "the budget is never renewed": ("if (!moving || !braking) n->budget_used = 0;", ""),
    "catching up": ("n->due = n->now + period;\n      n->late++;", "n->late++;"),
    "unguarded": (
        "kz_admit(&c->limit, &c->axis, want, miss_budget, &rules);",
        "kz_move(&c->axis, want - c->axis.q);",
    ),
    "a driven channel is seeded anew": ("if (!(n->enabled & bit(i))) kz_channel_seed", "kz_channel_seed"),
    "outputs on in INIT": ("n->inputs = KZ_IN_NO_SAMPLE;\n", "n->enabled = 1;\n"),
    "a velocity does not look where it is": (
        "c->axis.q = endless(c) ? 0 : within(measured, -KZ_RAW_MAX, KZ_RAW_MAX);",
        "",
    ),
    "a torque at any rate": ("within(within(want, l->lo, l->hi), c->axis.q - l->w, c->axis.q + l->w)", "want"),
    "a torque stays on in READY": ("idle == KZ_IDLE_REST ? 0 : damped", "damped"),
    "a torque stays on when CUT": ("if (c->mode == KZ_MODE_TORQUE) c->axis.q = 0;", ""),
    "a torque damps nothing": ("return moved < 0 ? (int32_t)x : -(int32_t)x;", "return 0;"),
    "a torque drives what moves": (
        "return moved < 0 ? (int32_t)x : -(int32_t)x;",
        "return moved < 0 ? -(int32_t)x : (int32_t)x;",
    ),
    "a torque counts as rest while it moves": (" && !(c->mode == KZ_MODE_TORQUE && n->moving & bit(i))", ""),
    "FAILSAFE moves before it rests": ("if (at_rest(n)) n->retreating = 1;", "n->retreating = 1;"),
    "FAILSAFE moves at full speed": ("slow.w = slow.w > 8 ? slow.w / 8 : 1;", ""),
    "FAILSAFE moves with a broken sensor": ("return n->retreating && !(n->inputs & broken);", "return n->retreating;"),
    "FAILSAFE moves after a machine fault": (
        " || n->fault == KZ_FAULT_ACTUATOR || n->fault == KZ_FAULT_SENSOR) return 0;",
        ") return 0;",
    ),
    "FAILSAFE stays where it is": ("return retreats(n) ? KZ_IDLE_RETREAT : KZ_IDLE_BRAKE;", "return KZ_IDLE_BRAKE;"),
    "COMMAND of any age": ("if (n->now - obs >= (uint32_t)ttl * 1000u) {", "if (0) {"),
    "COMMAND with a seq that does not wrap": (
        "(int16_t)(uint16_t)(seq - n->command_seq) <= 0",
        "seq <= n->command_seq",
    ),
    "a clock that does not wrap": ("return (int32_t)(a - b) >= 0; }", "return a >= b; }"),
    "limits that are torn": ("n->staged != all_channels(n) || ", ""),
    "a torque beyond its range": ("within(within(want, l->lo, l->hi), ", "within(want, "),
}


def careless(name: str) -> dict[str, str]:
    """The texts of NODE by file, one of them changed as ``CARELESS[name]`` says; "" changes nothing."""
    texts = {file: (C / file).read_text() for file in NODE}
    if name:
        old, new = CARELESS[name]
        found = sum(text.count(old) for text in texts.values())
        assert found == 1, f"the node has changed: {old!r} occurs {found} times"
        texts = {file: text.replace(old, new) for file, text in texts.items()}
    return texts
