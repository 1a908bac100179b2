/** The handler that netifd has for interfaces in /etc/config/network. */
import { assertEquals } from "@std/assert";
import { testUnless } from "../compile_helpers.ts";
import { ash, noBusybox, UCI } from "./ash.ts";

const NETWORK = `
INCLUDE_ONLY=
WGD_DIRECTORY="$DIRECTORY/run"
wg0__private_key=PRIVATE= wg0__listen_port=51820 wg0__mtu=1380 wg0__fwmark=0x1
wg0__addresses="10.9.0.1/24 10.9.1.1 fd09::1/64 fd09::2" wg0__ip6prefix=fd0a::/56
wg0__tunlink=wan wg0__memory=96
sections__wireguard_wg0="one two off none"
one__public_key=K1= one__endpoint_host=vpn.example one__route_allowed_ips=1
one__allowed_ips="10.0.0.0/8 fd00::/8 192.0.2.7 2001:db8::7"
one__preshared_key=PSK= one__persistent_keepalive=25 one__description="The office"
two__public_key=K2= two__endpoint_host=2001:db8::1 two__endpoint_port=1234
two__allowed_ips=172.16.0.0/12
off__public_key=K9= off__disabled=1 off__allowed_ips=1.2.3.4 off__route_allowed_ips=1
none__allowed_ips=1.2.3.5
`;

const FILE = `[Interface]
PrivateKey = PRIVATE=
ListenPort = 51820
FwMark = 0x1
MTU = 1380
Table = off

[Peer]
PublicKey = K1=
PresharedKey = PSK=
AllowedIPs = 10.0.0.0/8, fd00::/8, 192.0.2.7, 2001:db8::7
Endpoint = vpn.example:51820
PersistentKeepalive = 25

[Peer]
PublicKey = K2=
AllowedIPs = 172.16.0.0/12
Endpoint = [2001:db8::1]:1234
`;

/** Runs a line after netifd's handler. */
function netifd(
  directory: string,
  line: string,
  more = "",
): ReturnType<typeof ash> {
  return ash(directory, {
    stubs: `${UCI}${NETWORK}${more}INCLUDE_ONLY=1`,
    script: "openwrt/wgd.proto",
    line,
  }, { STUBBED: "" });
}

testUnless(
  noBusybox,
  "netifd sets an interface up: file, addresses, routes, host routes",
  async (directory) => {
    const { code, notes, err } = await netifd(directory, "proto_wgd_setup wg0");
    assertEquals(code, 0, err);
    const path = `${directory}/run/wg0.conf`;
    assertEquals(Deno.readTextFileSync(path), FILE);
    assertEquals((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
    assertEquals(notes, [
      "logger|-t|wgd|-p|daemon.err|none: a peer without public_key is left out|",
      `wgd|up --memory 96 ${path}|`,
      "proto_init_update|wg0|1|",
      "proto_add_ipv4_address|10.9.0.1|24|",
      "proto_add_ipv4_address|10.9.1.1|32|",
      "proto_add_ipv6_address|fd09::1|64|",
      "proto_add_ipv6_address|fd09::2|128|",
      "proto_add_ipv6_prefix|fd0a::/56|",
      "proto_add_ipv4_route|10.0.0.0|8|",
      "proto_add_ipv6_route|fd00::|8|",
      "proto_add_ipv4_route|192.0.2.7|32|",
      "proto_add_ipv6_route|2001:db8::7|128|",
      "proto_send_update|wg0|",
      "wgd|show wg0 endpoints|",
      "proto_add_host_dependency|wg0|192.0.2.1|wan|",
      "proto_add_host_dependency|wg0|2001:db8::1|wan|",
      "wgd|show wg0 endpoints|",
    ]);
  },
);

testUnless(
  noBusybox,
  "netifd renews an interface when the address of a name is found",
  async (directory) => {
    const line = `proto_wgd_setup wg0
[ -s "$WGD_DIRECTORY/wg0.pending" ]; note "pending $?"
printf 'K1=\\t192.0.2.1:1\\nK3=\\t192.0.2.9:1\\n' > "$DIRECTORY/endpoints"
wait
proto_wgd_renew wg0
[ -e "$WGD_DIRECTORY/wg0.pending" ]; note "pending $?"`;
    const { code, notes, err } = await netifd(
      directory,
      line,
      `sections__wireguard_wg0="one three four"
three__public_key=K3= three__endpoint_host=late.example
four__public_key=K9=
`,
    );
    assertEquals(code, 0, err);
    const told = notes.filter((note) =>
      /^(pending|ubus|proto_add_host)/.test(note)
    );
    assertEquals(told, [
      "proto_add_host_dependency|wg0|192.0.2.1|wan|",
      "proto_add_host_dependency|wg0|2001:db8::1|wan|",
      "pending 0|",
      "ubus|call|network.interface.wg0|renew|",
      "proto_add_host_dependency|wg0|192.0.2.1|wan|",
      "proto_add_host_dependency|wg0|192.0.2.9|wan|",
      "pending 1|",
    ]);
  },
);

testUnless(
  noBusybox,
  "netifd: an endpoint in brackets, peers without one, nothing but a key",
  async (directory) => {
    const { code, err } = await netifd(
      directory,
      "proto_wgd_setup wg0",
      `wg0__listen_port= wg0__mtu= wg0__fwmark= wg0__memory=
sections__wireguard_wg0="one two"
one__public_key=K1= one__endpoint_host=[2001:db8::9] one__allowed_ips=
one__preshared_key= one__persistent_keepalive= one__route_allowed_ips=0
two__public_key=K2= two__endpoint_host= two__allowed_ips="fd00::/8  10.0.0.0/8"
`,
    );
    assertEquals(code, 0, err);
    assertEquals(
      Deno.readTextFileSync(`${directory}/run/wg0.conf`),
      `[Interface]
PrivateKey = PRIVATE=
Table = off

[Peer]
PublicKey = K1=
Endpoint = [2001:db8::9]:51820

[Peer]
PublicKey = K2=
AllowedIPs = fd00::/8, 10.0.0.0/8
`,
    );
  },
);

testUnless(
  noBusybox,
  "netifd: nohostroute, a key that is generated, renewal, the end",
  async (directory) => {
    const { code, notes, err } = await netifd(
      directory,
      "proto_wgd_setup wg0 && proto_wgd_renew wg0 && proto_wgd_teardown wg0",
      "wg0__nohostroute=1 wg0__private_key=generate sections__wireguard_wg0=\n" +
        "wg0__addresses= wg0__ip6prefix=\n",
    );
    assertEquals(code, 0, err);
    const path = `${directory}/run/wg0.conf`;
    const key = [
      "wgd|genkey|",
      "uci|-q|set|network.wg0.private_key=GENERATED=|",
      "uci|-q|commit|network|",
    ];
    const update = ["proto_init_update|wg0|1|", "proto_send_update|wg0|"];
    assertEquals(notes, [
      ...key,
      `wgd|up --memory 96 ${path}|`,
      ...update,
      ...key,
      `wgd|reload ${path}|`,
      ...update,
      "wgd|down wg0|",
    ]);
    assertEquals([...Deno.readDirSync(`${directory}/run`)], []);
  },
);

testUnless(
  noBusybox,
  "netifd is told why an interface cannot be set up",
  async (directory) => {
    const noKey = await netifd(
      directory,
      "proto_wgd_setup wg0",
      "wg0__private_key=\n",
    );
    assertEquals(noKey.code, 1);
    assertEquals(noKey.notes.slice(1), [
      "proto_notify_error|wg0|NO_PRIVATE_KEY|",
      "proto_block_restart|wg0|",
    ]);
    const failed = await netifd(
      directory,
      ': > "$DIRECTORY/fails"; proto_wgd_setup wg0',
    );
    assertEquals(failed.code, 1);
    // Not blocked: it may go better another time.
    assertEquals(failed.notes.slice(-3), [
      "proto_notify_error|wg0|SETUP_FAILED|",
      "sleep|5|",
      "proto_setup_failed|wg0|",
    ]);
  },
);

testUnless(
  noBusybox,
  "netifd is told the protocol's options",
  async (directory) => {
    const { notes } = await netifd(
      directory,
      "proto_wgd_init_config; " +
        'note "$available" "$no_proto_task" "$renew_handler"',
    );
    assertEquals(notes.at(-1), "1|1|1|");
    const told = notes.slice(0, -1).map((note) =>
      note.replace("proto_config_add_", "")
    );
    // Those of the protocol wireguard, then wgd's own.
    assertEquals(told, [
      ...["string|private_key|", "int|listen_port|", "int|mtu|"],
      ...["string|fwmark|", "array|addresses|", "array|ip6prefix|"],
      ...["boolean|nohostroute|", "string|tunlink|"],
      ...["string|threads|", "string|crypto|", "string|memory|"],
    ]);
  },
);
