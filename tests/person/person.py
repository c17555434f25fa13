"""A person at a Matrix client, driven by JSON lines.

It is matrix-nio, which shares no line with the client library of the daemon. A line on standard input is a request,
{"id": 1, "do": "say", ...}; a line on standard output is its answer, {"id": 1, "ok": ...} or {"id": 1, "error": "..."},
or something that happened: {"event": ...}, {"invite": ...}, {"receipt": ...}, {"typing": ...}. Times are milliseconds.
"""

import asyncio
import json
import logging
import sys
import time
import uuid
from urllib.parse import quote

import aiohttp
import nio
from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key
from signedjson.sign import sign_json

FILTER = {"presence": {"not_types": ["*"]}, "room": {"timeline": {"limit": 1000}}}
API = "/_matrix/client/v3"


def now():
    return time.time() * 1000


def tell(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


class Refused(Exception):
    """The homeserver's answer was an error."""

    def __init__(self, status, body):
        super().__init__(f"{status} {json.dumps(body)}")
        self.status, self.body = status, body


class Person:
    def __init__(self):
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=180))
        self.sending = asyncio.Lock()
        self.changed = asyncio.Condition()
        self.unread = {}  # events whose key is still missing, by event id
        self.withheld = {}  # keys that were not shared, by session id
        self.self_signing = None

    async def call(self, method, path, body=None):
        """Speaks to the homeserver as this person, without any client library."""
        headers = {"Authorization": f"Bearer {self.client.access_token}"}
        url = self.homeserver + path
        async with self.http.request(method, url, json=body, headers=headers) as answer:
            content = await answer.json(content_type=None)
            if answer.status >= 400:
                raise Refused(answer.status, content)
            return content

    async def login(self, homeserver, user, password, folder):
        self.homeserver, self.password = homeserver, password
        config = nio.AsyncClientConfig(max_timeout_retry_wait_time=0.5)
        self.client = nio.AsyncClient(homeserver, user, store_path=folder, config=config)
        answer = await self.client.login(password, "person")
        if not isinstance(answer, nio.LoginResponse):
            raise RuntimeError(f"no login: {answer}")
        self.client.add_event_callback(self.on_event, nio.Event)
        self.client.add_event_callback(self.on_invite, nio.InviteMemberEvent)
        self.client.add_ephemeral_callback(self.on_ephemeral, nio.EphemeralEvent)
        await self.sync(0)
        self.following = asyncio.create_task(self.follow())
        return {
            "user_id": answer.user_id,
            "device_id": answer.device_id,
            "access_token": answer.access_token,
            "fingerprint": self.client.olm.account.identity_keys["ed25519"],
        }

    async def follow(self):
        while True:
            try:
                await self.sync(30_000)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # a homeserver that is away comes back
                print(f"sync: {error!r}", file=sys.stderr)
                await asyncio.sleep(0.1)

    async def stop_following(self):
        """Hears nothing any more; it can still seal and send."""
        self.following.cancel()

    async def sync(self, timeout):
        answer = await self.client.sync(timeout, FILTER)
        if not isinstance(answer, nio.SyncResponse):
            raise RuntimeError(f"no sync: {answer}")
        await self.client.send_to_device_messages()
        if self.client.should_upload_keys:
            await self.client.keys_upload()
        if self.client.should_query_keys:
            await self.client.keys_query()
        for event, room in list(self.unread.values()):
            decrypted = self.client.olm._decrypt_megolm_no_error(event)
            if decrypted:
                del self.unread[event.event_id]
                self.tell_event(decrypted, room, True)
        async with self.changed:
            self.changed.notify_all()

    async def on_event(self, room, event):
        encrypted = isinstance(event, nio.MegolmEvent)
        if encrypted:
            event.room_id = room.room_id
            self.unread[event.event_id] = (event, room)
        self.tell_event(event, room, encrypted or bool(event.decrypted))

    def tell_event(self, event, room, encrypted):
        source = event.source
        tell({
            "event": {
                "room": room.room_id,
                "id": event.event_id,
                "sender": event.sender,
                "kind": source.get("type", ""),
                "state_key": source.get("state_key"),
                "content": source.get("content", {}),
                "sent_at": event.server_timestamp,
                "seen_at": now(),
                "encrypted": encrypted,
                "session": getattr(event, "session_id", None),
            }
        })

    async def on_invite(self, room, event):
        if event.membership == "invite" and event.state_key == self.client.user_id:
            tell({"invite": {"room": room.room_id, "sender": event.sender}})

    async def on_ephemeral(self, room, event):
        if isinstance(event, nio.ReceiptEvent):
            for receipt in event.receipts:
                tell({"receipt": {"room": room.room_id, "event": receipt.event_id, "user": receipt.user_id}})
        elif isinstance(event, nio.TypingNoticeEvent):
            tell({"typing": {"room": room.room_id, "users": event.users}})

    async def identity(self):
        """Gives the user new cross-signing keys, signs this device with them, and returns the master key."""
        user = self.client.user_id

        def key(usage):
            secret = generate_signing_key("unused")
            public = encode_verify_key_base64(get_verify_key(secret))
            secret.version = public
            return secret, {"user_id": user, "usage": [usage], "keys": {f"ed25519:{public}": public}}

        master, master_key = key("master")
        self_signing, self_signing_key = key("self_signing")
        _, user_signing_key = key("user_signing")
        body = {
            "master_key": master_key,
            "self_signing_key": sign_json(self_signing_key, user, master),
            "user_signing_key": sign_json(user_signing_key, user, master),
        }
        path = f"{API}/keys/device_signing/upload"
        try:
            await self.call("POST", path, body)
        except Refused as refused:  # a replacement asks for the password
            if refused.status != 401:
                raise
            who = {"type": "m.id.user", "user": user}
            auth = {"type": "m.login.password", "identifier": who, "password": self.password}
            await self.call("POST", path, body | {"auth": auth | {"session": refused.body["session"]}})
        self.self_signing = self_signing
        await self.sign_device(self.client.device_id)
        return master.version

    async def sign_device(self, device):
        """Signs one of this user's devices with the identity that this process has made."""
        user = self.client.user_id
        answer = await self.call("POST", f"{API}/keys/query", {"device_keys": {user: [device]}})
        signed = sign_json(answer["device_keys"][user][device], user, self.self_signing)
        answer = await self.call("POST", f"{API}/keys/signatures/upload", {user: {device: signed}})
        if answer.get("failures"):
            raise RuntimeError(f"the homeserver takes no signature: {answer}")

    async def known_room(self, room_id, encrypted):
        """Waits until the room has come down the sync."""
        async with self.changed:
            await self.changed.wait_for(
                lambda: room_id in self.client.rooms and (not encrypted or self.client.rooms[room_id].encrypted)
            )
        return self.client.rooms[room_id]

    async def say(self, room, kind, content, plain=False, withhold=False, relates_to=None):
        """Sends one event, encrypted unless `plain`; with `withhold` nobody gets its key. `relates_to` stands beside the
        ciphertext, where this library puts none."""
        started = now()
        session = None
        if not plain:
            async with self.sending:  # in the order of the requests: the ratchet only turns forward
                kind, content, session = await self.encrypt(room, kind, content, withhold)
                if relates_to:
                    content["m.relates_to"] = relates_to
                return await self.put(room, kind, content, session, started)
        return await self.put(room, kind, content, session, started)

    async def seal(self, room, kind, content):
        """Encrypts an event and sends nothing: somebody else will."""
        async with self.sending:
            kind, content, _ = await self.encrypt(room, kind, content, withhold=False)
        return [kind, content]

    async def put(self, room, kind, content, session, started):
        path = f"{API}/rooms/{quote(room)}/send/{kind}/{uuid.uuid4()}"
        answer = await self.call("PUT", path, content)
        return {
            "id": answer["event_id"],
            "kind": kind,
            "content": content,
            "session": session,
            "started_at": started,
            "acknowledged_at": now(),
        }

    async def encrypt(self, room, kind, content, withhold):
        client, olm = self.client, self.client.olm
        known = await self.known_room(room, encrypted=True)
        if not known.members_synced:
            await client.joined_members(room)
            olm.update_tracked_users(known)
        while client.should_query_keys:
            await client.keys_query()
        if withhold:
            client.invalidate_outbound_session(room)
            olm.create_outbound_group_session(room)
            session = olm.outbound_group_sessions[room]
            session.shared = True
            self.withheld[session.id] = (room, session.session_key)
        elif olm.should_share_group_session(room):
            answer = await client.share_group_session(room, ignore_unverified_devices=True)
            if not isinstance(answer, nio.ShareGroupSessionResponse):
                raise RuntimeError(f"no key is shared: {answer}")
        kind, content = client.encrypt(room, kind, content)
        return kind, content, content["session_id"]

    async def deliver_key(self, session):
        """Gives the members the key that `say` has withheld."""
        client, olm = self.client, self.client.olm
        room, key = self.withheld.pop(session)
        missing = client.get_missing_sessions(room)
        if missing:
            await client.keys_claim(missing)
        content = {"algorithm": olm._megolm_algorithm, "room_id": room, "session_id": session, "session_key": key}
        messages = {}
        for user in client.rooms[room].users:
            for device in olm.device_store.active_user_devices(user):
                to = olm.session_store.get(device.curve25519)
                if to and device.id != client.device_id:
                    sealed = olm._olm_encrypt(to, device, "m.room_key", content)
                    messages.setdefault(user, {})[device.id] = sealed
        path = f"{API}/sendToDevice/m.room.encrypted/{uuid.uuid4()}"
        await self.call("PUT", path, {"messages": messages})

    async def rotate(self, room):
        """Lets the next message begin a new session."""
        self.client.invalidate_outbound_session(room)

    async def answer(self, request):
        number, name = request.pop("id"), request.pop("do")
        try:
            tell({"id": number, "ok": await getattr(self, name)(**request)})
        except Exception as error:
            tell({"id": number, "error": f"{name}: {error}" if isinstance(error, Refused) else f"{name}: {error!r}"})


async def main():
    logging.getLogger("nio").setLevel(logging.CRITICAL)
    requests = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    person = Person()
    answering = set()
    while line := await requests.readline():
        task = asyncio.create_task(person.answer(json.loads(line)))
        answering.add(task)
        task.add_done_callback(answering.discard)


if __name__ == "__main__":
    asyncio.run(main())
