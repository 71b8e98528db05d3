"""One instance, wired: what there is, and in which order it starts and stops."""

import asyncio
import hmac
import random
from functools import partial

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

import handlers  # noqa: F401  (declares the commands)
from handlers.connections import Admitting, register_rooms
from handlers.effects import register_effects
from rules.transactions import Provider
from server.adapters.attachments import FolderStore
from server.adapters.notifier import LogNotifier, MailNotifier, NoNotifier, Notifier
from server.adapters.payments import Payments
from server.attachments import AttachmentRoutes
from server.commands.context import Market, Services
from server.commands.dispatch import DRAIN_S, UNKNOWN, Dispatcher
from server.commands.gateway import Gateway
from server.commands.limits import Limits, network_of
from server.commands.links import Links
from server.commands.meter import Meter
from server.commands.passwords import Passwords
from server.commands.payload import Bounds
from server.commands.registry import commands
from server.commands.tallies import Tallies
from server.commands.tokens import Tokens
from server.config import UPKEEP_CONNECTIONS, Config
from server.gauges import Gauges
from server.histogram import Histogram
from server.http import Http, address_of
from server.jobs import Jobs
from server.lag import LoopLag
from server.rooms.bus import Bus, LocalBus
from server.rooms.delivery import Delivery
from server.rooms.joining import Joining
from server.rooms.lease import Lease
from server.rooms.merging import Merging
from server.rooms.presence import Presences
from server.rooms.redisbus import RedisBus
from server.rooms.typing import Typing
from server.webhooks import WebhookRoutes
from server.wire import Server
from storage import Database
from storage import rooms as room_table

FLUSH_S = 0.25  # for the last packets to leave before the sockets are closed
IDLE_S = 75.0  # an HTTP connection on which no whole request comes is closed; longer than proxies keep theirs
BACKLOG = 4096  # of the listening socket: a reconnect storm waits there rather than being refused

logger = structlog.get_logger("parley")


class Parley:
    """A running instance. `start` serves; `stop` finishes what has been begun, and goes.

    `bus` stands in for the configured one in tests of several instances in one process.
    """

    def __init__(self, config: Config, dsn: str, secrets: tuple[str, ...], *, bus: Bus | None = None) -> None:
        self._config = config
        self._dsn = dsn
        self._secrets = secrets
        self._given_bus = bus

    async def start(self) -> int:
        """Connect, wire and listen; the port. Raises `Unavailable` where PostgreSQL does not answer."""
        config = self._config
        await self._connect()
        async with self.database.connection() as db:
            deployment = await room_table.find_deployment(db)
        self.bus = self._given_bus or _bus(config, deployment.digest_key)
        self.delivery = Delivery(self.upkeep, self.bus, tail_bytes=config.tail_bytes)
        self.joining = Joining(self.database, self.delivery)
        self.presences = Presences(
            self.database,
            self.delivery,
            self.bus,
            Lease(self.upkeep),
            debounce_s=config.presence_debounce_ms / 1000,
        )
        self.services = self._make_services(deployment.digest_key)
        if self._given_bus is not None or config.redis_url is not None:
            self.services.limits.settle(self.delivery, self.bus)
        register_rooms(self.joining)
        register_effects(self.services)
        self._make_wire()
        self.jobs = Jobs(self.services, retention_days=config.retention_days)
        await self.delivery.start()
        await self.presences.start()
        self.jobs.start()
        self.lag.start()
        return await self._listen()

    async def _connect(self) -> None:
        """Open both pools: what keeps instances in step and alive does not queue behind what users ask for.

        The second is whole from the start, unless the first begins with one: when a connection comes to it, all rooms
        are compared anew.
        """
        config = self._config
        self.database = await Database.open(
            self._dsn, min_size=config.pool_min, max_size=config.pool_max, name=f"parley {config.instance}"
        )
        self.upkeep = await Database.open(
            self._dsn,
            min_size=min(config.pool_min, UPKEEP_CONNECTIONS),
            max_size=UPKEEP_CONNECTIONS,
            name=f"parley {config.instance} upkeep",
        )
        self.waits = {"commands": Histogram(), "upkeep": Histogram()}
        self.database.on_wait = self.waits["commands"].count
        self.upkeep.on_wait = self.waits["upkeep"].count

    def _make_services(self, digest_key: bytes) -> Services:
        """What the handlers are given to work with."""
        config = self._config
        return Services(
            database=self.database,
            delivery=self.delivery,
            joining=self.joining,
            limits=Limits(config.rates, hmac.digest(digest_key, b"limits", "sha256")),
            tokens=Tokens(self._secrets, access_ttl_s=config.access_ttl_s, refresh_ttl_s=config.refresh_ttl_s),
            passwords=Passwords(),
            typing=Typing(self.delivery),
            merging=Merging(self.delivery.announce),
            presences=self.presences,
            links=Links(self._secrets, upload_ttl_s=config.upload_ttl_s, download_ttl_s=config.download_ttl_s),
            attachments=_store(config, digest_key),
            notifier=_notifier(config),
            payments=_payments(config),
            bounds=Bounds(
                config.text_chars,
                config.nesting,
                config.group_people,
                attachments=config.attachments,
                attachment_bytes=config.attachment_bytes,
                unsent_bytes=config.unsent_bytes,
            ),
            market=_market(config),
            tallies=Tallies(),
            digest_key=digest_key,
        )

    def _make_wire(self) -> None:
        """What stands between the sockets and the handlers, and what is measured of it."""
        config, meter = self._config, Meter((*commands, UNKNOWN))
        self.dispatcher = Dispatcher(self.services, meter, in_flight=config.commands_in_flight)
        admitting = Admitting(config.instance, self.database, per_user=config.sockets_per_user)
        self.gateway = Gateway(self.dispatcher, admitting)
        self.wire = Server(
            self.gateway,
            address_of=partial(address_of, trusted_proxy=config.trusted_proxy),
            network_of=network_of,
            ping_interval_ms=config.ping_interval_ms,
            ping_timeout_ms=config.ping_timeout_ms,
            connect_timeout_ms=config.connect_timeout_ms,
            frame_bytes=config.frame_bytes,
            deflate=config.deflate,
            origins=config.origins,
            polling=config.workers == 1,
            per_address=config.sockets_per_address,
            handshakes=config.rates["handshakes"],
        )
        self.lag = LoopLag()
        gauges = Gauges(self.wire, self.delivery, self.bus, lag=self.lag.histogram, waits=self.waits)
        registry = CollectorRegistry()
        for collector in (meter, gauges):
            registry.register(collector)
        for of_python in (ProcessCollector, PlatformCollector, GCCollector):
            of_python(registry=registry)
        self._http = Http(self.dispatcher, registry, trusted_proxy=config.trusted_proxy, origins=config.origins)

    async def _listen(self) -> int:
        app = web.Application(client_max_size=self._config.frame_bytes)
        self.wire.attach(app)
        self._http.attach(app, lambda: self.bus.state, is_shared=self._config.workers > 1)
        AttachmentRoutes(self.services, self._http).attach(app)
        WebhookRoutes(self.services).attach(app)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1,
            keepalive_timeout=IDLE_S,
            tcp_keepalive=False,  # the heartbeat asks sooner
        )
        await self._runner.setup()
        self._site = web.TCPSite(
            self._runner,
            self._config.host,
            self._config.port,
            backlog=BACKLOG,
            reuse_port=self._config.workers > 1,
        )
        await self._site.start()
        self._own = web.AppRunner(self._http.own_application(), access_log=None, handle_signals=False)
        await self._own.setup()
        if self._config.metrics_port:
            await web.TCPSite(self._own, self._config.metrics_host, self._config.metrics_port).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Say so, let nobody in, finish what has been begun, close, and go.

        Where PostgreSQL does not answer, what still waits for it fails a second before the rest is broken off.
        """
        cut = asyncio.get_running_loop().call_later(DRAIN_S - 1, self._cut)
        self._http.is_ready = False
        drain_ms = self._config.drain_ms
        self.dispatcher.is_closing = True
        self.gateway.drain(self.wire.connections, lambda: random.randint(0, drain_ms))
        await self._site.stop()
        await self.dispatcher.drained()
        if self.wire.connections:
            await asyncio.sleep(FLUSH_S)
        for connection in self.wire.connections:
            connection.drop()
        self.lag.stop()
        await self.jobs.stop()
        await self.presences.stop()
        await self.joining.stop()
        await self.delivery.stop()
        await self._runner.cleanup()
        await self._own.cleanup()
        await self.wire.shutdown()
        if self.services.payments is not None:
            await self.services.payments.close()
        await asyncio.gather(self.database.close(), self.upkeep.close())
        cut.cancel()

    def _cut(self) -> None:
        logger.warning("database_broken_off")
        self.database.terminate()
        self.upkeep.terminate()


def _bus(config: Config, digest_key: bytes) -> Bus:
    """The bus between the instances of a deployment, which its secret keeps from others on the same Redis."""
    if config.redis_url is None:
        return LocalBus()
    return RedisBus(config.redis_url, hmac.digest(digest_key, b"bus", "sha256"))


def _store(config: Config, digest_key: bytes) -> FolderStore:
    """The attachments of this database alone: two that are given one folder must not sweep each other's files."""
    name = hmac.digest(digest_key, b"attachments", "sha256").hex()[:16]
    return FolderStore((config.attachments_folder or config.data / "attachments") / name)


def _notifier(config: Config) -> Notifier:
    """By mail; else by the log where the database is this server's own; else not at all."""
    if config.mail is not None:
        return MailNotifier(config.mail)
    return LogNotifier() if config.database_url is None else NoNotifier()


def _payments(config: Config) -> Payments | None:
    """Stripe wherever there is a key for it: deals that were to be paid by it outlive another setting."""
    if config.stripe_key is None or config.stripe_webhook_secret is None:
        return None
    from server.adapters.stripe import StripePayments  # its library takes 0.3 s to import

    return StripePayments(config.stripe_key, config.stripe_webhook_secret, config.stripe_url)


def _market(config: Config) -> Market:
    provider = Provider(config.payments)
    pay_within_s = config.pay_stripe_s if provider is Provider.STRIPE else config.pay_manual_s
    return Market(config.offer_rounds, config.fee_bps, provider, pay_within_s, config.listing_days)
