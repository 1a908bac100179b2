/** lib/config: the parser and the formatter of configuration files. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  ConfigError,
  ConfigErrors,
  formatConfig,
  interfaceNameOf,
  isInterfaceName,
  parseConfig,
  worldAccessibleWarning,
} from "../lib/config.ts";
import { encodeKey } from "../lib/crypto/bytes.ts";
import { formatCidr } from "../lib/ip.ts";
import { randomSource } from "./config_helpers.ts";
import type { ConfigFormat } from "../lib/config.ts";

const SECRET = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PUBLIC_A = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const PUBLIC_B = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const PRESHARED = "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak=";

/** The messages about a file that is refused. */
function errorsOf(text: string, format: ConfigFormat = "wg-quick"): string[] {
  const error = assertThrows(
    () => parseConfig(text, { file: "wg0.conf", format }),
    ConfigErrors,
  );
  return error.errors.map(({ message }) => message);
}

function peerErrors(lines: string): string[] {
  return errorsOf(`[Peer]\nPublicKey=${PUBLIC_A}\n${lines}`);
}

Deno.test("a file of wg-quick(8) is read whole", () => {
  const config = parseConfig(`# office
[Interface]
Address = 10.200.100.8/24, fd00::8/64
Address=192.0.2.1
DNS = 10.200.100.1, example.org
MTU = 1420
Table = off
PreUp = echo %i # not a comment
PostUp = iptables -A FORWARD -i %i -j ACCEPT; true
PostUp = second
PreDown = true
PostDown = echo "#"
SaveConfig = true
ListenPort = 51820
FwMark = 0xCA6C
PrivateKey = ${SECRET}

[Peer]
PublicKey = ${PUBLIC_A}
PresharedKey = ${PRESHARED}
Endpoint = [2001:DB8::1]:51820 # the router
AllowedIPs = 10.192.122.3/32, 10.192.124.0/24
AllowedIPs = fd00::/8
PersistentKeepalive = 25

[Peer]
PublicKey = ${PUBLIC_B}
Endpoint = vpn.example.com:1
PersistentKeepalive = off
`);
  const { interface: device, peers, warnings } = config;
  assertEquals(warnings, []);
  assertEquals(device.addresses.map(formatCidr), [
    "10.200.100.8/24",
    "fd00::8/64",
    "192.0.2.1/32",
  ]);
  assertEquals(device.dns, ["10.200.100.1", "example.org"]);
  assertEquals([device.mtu, device.table, device.saveConfig], [
    1420,
    "off",
    true,
  ]);
  assertEquals(device.preUp, ["echo %i # not a comment"]);
  assertEquals(device.postUp, [
    "iptables -A FORWARD -i %i -j ACCEPT; true",
    "second",
  ]);
  assertEquals([...device.preDown, ...device.postDown], ["true", 'echo "#"']);
  assertEquals([device.listenPort, device.fwmark], [51820, 0xca6c]);
  assert(device.privateKey && encodeKey(device.privateKey) === SECRET);
  const [first, second] = peers;
  assertEquals(encodeKey(first.publicKey), PUBLIC_A);
  assert(first.presharedKey && encodeKey(first.presharedKey) === PRESHARED);
  assertEquals(first.endpoint, { host: "2001:db8::1", port: 51820 });
  assertEquals(first.allowedIps.map(formatCidr), [
    "10.192.122.3/32",
    "10.192.124.0/24",
    "fd00::/8",
  ]);
  assertEquals(first.persistentKeepalive, 25);
  assertEquals(second.allowedIps, []);
  assertEquals(second.endpoint, { host: "vpn.example.com", port: 1 });
  assertEquals(second.persistentKeepalive, 0);
});

Deno.test("letter case, white space and line ends do not matter", () => {
  const config = parseConfig(
    ` [ inter FACE ]\r\n\tlisten port=5 1\t8 20\r\nfwmark\t=\toFF\r\n` +
      `[PEER]#x\r\nPUBLICKEY= ${PUBLIC_A.slice(0, 9)} ${PUBLIC_A.slice(9)}\r\n`,
  );
  assertEquals(config.interface.listenPort, 51820);
  assertEquals(config.interface.fwmark, 0);
  assertEquals(encodeKey(config.peers[0].publicKey), PUBLIC_A);
});

Deno.test("white space and letter case are those of ASCII, as in wg", () => {
  for (
    const text of [
      "[Interface]\nListenPort\u00a0= 1",
      "[Interface]\nListenPort =\u20281",
      "[Interface\ufeff]",
      "[Interface]\nTa\u00adble = off",
      "[Interface]\nSaveConfig = tr\u017fe",
      `[Peer]\nPublic\u212aey = ${PUBLIC_A}`,
      `[Peer]\nPublicKey = ${PUBLIC_A}\nAllowedIPs = ::/0,\u00a0::1/128`,
    ]
  ) assert(errorsOf(text).length > 0, JSON.stringify(text));
});

Deno.test("a byte order mark is refused, as wg does, but by its name", () => {
  assertEquals(
    errorsOf("\ufeff[Interface]\nListenPort = x").map((message) =>
      message.split(";")[0]
    ),
    [
      "wg0.conf:1:1: a byte order mark, which wg does not know",
      'wg0.conf:2:14: ListenPort: "x" is not a number from 0 to 65535',
    ],
  );
});

Deno.test("keys of wg-quick may be empty, as web interfaces write them", () => {
  const { interface: device, warnings } = parseConfig(`[Interface]
Address =
DNS =
MTU = 1400
MTU =
Table = off
Table =
PreUp =
PostUp = # nothing
PreDown =
PostDown =
`);
  assertEquals(device, {
    addresses: [],
    dns: [],
    preUp: [],
    postUp: ["# nothing"],
    preDown: [],
    postDown: [],
  });
  assertEquals(warnings.length, 2);
});

Deno.test("DNS takes servers, with scope, and domains, also resolved's", () => {
  const { interface: device } = parseConfig(
    "[Interface]\nDNS = 1.1.1.1,fe80::1%eth0 example.org., ~corp.example ~.",
  );
  assertEquals(device.dns, [
    "1.1.1.1",
    "fe80::1%eth0",
    "example.org.",
    "~corp.example",
    "~.",
  ]);
  for (const bad of ["1.1.1.1%eth0", "fe80::1%", "~", "~1.1.1.1", "a/b"]) {
    assertEquals(errorsOf(`[Interface]\nDNS = ${bad}`).length, 1, bad);
  }
});

Deno.test("names of services stand for ports where they can be looked up", () => {
  const text = `[Interface]\nListenPort = domain\n[Peer]\n` +
    `PublicKey = ${PUBLIC_A}\nEndpoint = [::1]:ntp\n`;
  assertEquals(errorsOf(text).length, 2);
  const ports: Record<string, number> = { domain: 53, ntp: 123 };
  const servicePort = (name: string): number | null => ports[name] ?? null;
  const { interface: device, peers } = parseConfig(text, { servicePort });
  assertEquals(device.listenPort, 53);
  assertEquals(peers[0].endpoint, { host: "::1", port: 123 });
  assertThrows(
    () =>
      parseConfig(text.replace("ntp", "constructor"), {
        servicePort: () => null,
      }),
    ConfigErrors,
    "Endpoint",
  );
});

Deno.test("keys of wg-quick need a header that wg-quick sees", () => {
  const [message] = errorsOf("[ Interface ]\nListenPort=1\nMTU = 1400");
  assertStringIncludes(message, "wg0.conf:3:1: MTU: wg-quick does not see");
  parseConfig("  [iNTERFACE]\t# x\nMTU = 1400");
});

Deno.test("sections may come again; a value given twice is warned about", () => {
  const { interface: device, warnings } = parseConfig(
    "[Interface]\nListenPort=1\n[Interface]\nAddress=::1\nlistenport=2\n" +
      "Address=::2",
    { file: "wg0.conf" },
  );
  assertEquals(device.listenPort, 2);
  assertEquals(device.addresses.length, 2);
  assertEquals(warnings, [
    "wg0.conf:5:1: ListenPort: given more than once; the last one counts",
  ]);
});

Deno.test("host bits of AllowedIPs are cleared with a warning", () => {
  const { peers, warnings } = parseConfig(
    `[Peer]\nPublicKey=${PUBLIC_A}\nAllowedIPs = 10.0.0.0/8, 10.1.2.3/16`,
    { file: "wg0.conf" },
  );
  assertEquals(peers[0].allowedIps.map(formatCidr), [
    "10.0.0.0/8",
    "10.1.0.0/16",
  ]);
  assertEquals(warnings, [
    "wg0.conf:3:26: AllowedIPs: 10.1.2.3/16 has bits set beyond its prefix; " +
    "10.1.0.0/16 is meant",
  ]);
});

Deno.test("a peer that comes twice is warned about", () => {
  const peer = `[Peer]\nPublicKey=${PUBLIC_A}\n`;
  const { peers, warnings } = parseConfig(peer + peer, { file: "wg0.conf" });
  assertEquals(peers.length, 2);
  assertStringIncludes(warnings[0], "wg0.conf:3:1: Peer: PublicKey is also");
});

Deno.test("errors tell file, line, column, what is wrong and what was expected", () => {
  assertEquals(peerErrors("AllowedIPs = ::/0, 10.0.0.0/33"), [
    'wg0.conf:3:20: AllowedIPs: "10.0.0.0/33" is not an address with a prefix ' +
    "length; expected an address with a prefix length of 0 to 32",
  ]);
  const error = assertThrows(
    () => parseConfig("[Interface]\n  MTU = 9 # x", { file: "a.conf" }),
    ConfigErrors,
  );
  assert(error instanceof SyntaxError);
  const [first] = error.errors;
  assert(first instanceof ConfigError && first instanceof SyntaxError);
  assertEquals(
    [first.file, first.line, first.column, first.text, first.expected],
    ["a.conf", 2, 9, "9", "a number from 68 to 65535"],
  );
});

Deno.test("all errors of a file are told at once, in order", () => {
  const lines = errorsOf(`ListenPort = 1
[Interfaces]
PrivateKey = ignored, its section is not known
[Interface]
ListenPort = 65536
ListenPrt = 1
just a line
[Peer]
AllowedIPs = 1.2.3.4/32,,fe80::/129
Endpoint = 1.2.3.4
[Peer]
PublicKey = nonsense
`);
  assertEquals(lines.map((line) => line.split(": ")[0]), [
    ...["wg0.conf:1:1", "wg0.conf:2:1", "wg0.conf:5:14", "wg0.conf:6:1"],
    ...["wg0.conf:7:1", "wg0.conf:8:1", "wg0.conf:9:25", "wg0.conf:9:26"],
    ...["wg0.conf:10:12", "wg0.conf:12:13"],
  ]);
  assertStringIncludes(lines[0], "[Interface] or [Peer] above it");
  assertStringIncludes(lines[1], "did you mean [Interface]?");
  assertStringIncludes(lines[3], "did you mean ListenPort?");
  assertStringIncludes(lines[5], "no PublicKey in this section");
});

Deno.test("a flood of errors is cut short in the message, not in the list", () => {
  const error = assertThrows(
    () => parseConfig("x\n".repeat(1000)),
    ConfigErrors,
    "… and 950 more errors",
  );
  assertEquals(error.errors.length, 1000);
  assertEquals(error.message.split("\n").length, 51);
});

Deno.test("values out of range or of the wrong form are refused", () => {
  const inInterface = [
    ...["ListenPort = -1", "ListenPort = http", "ListenPort =", "FwMark = 0x"],
    ...["FwMark = 0x100000000", "FwMark = 4294967296", "FwMark = 0X10"],
    ...["PrivateKey =", "Address = 10.0.0.0/33", "Address = wg0", "DNS = a..b"],
    ...["MTU = big", "Table = a b", "MTU = 14 00", "SaveConfig = yes"],
    ...["SaveConfig =", "PostUp = a\0b", "ListenPort = 1\0"],
    ...["PersistentKeepalive = 1", "Endpoint = 1.2.3.4:5", "=", "= 1"],
  ];
  for (const line of inInterface) {
    assertEquals(errorsOf(`[Interface]\n${line}`).length, 1, line);
  }
  const inPeer = [
    ...["Endpoint = name", "Endpoint = ::1:5", "Endpoint = [1.2.3.4]:5"],
    ...["Endpoint = 1.2.3.4:0", "Endpoint =", "Endpoint = 1.2.3.400:5"],
    ...["AllowedIPs = 10.0.0.0/8 10.1.0.0/16", "AllowedIPs = ::/0,"],
    ...["AllowedIPs = 10.0.0/8", "AllowedIPs = +10.0.0.0/8"],
    ...["PersistentKeepalive = 65536", "PersistentKeepalive = on"],
    ...["AllowedIPs =", "PublicKey =", "PresharedKey ="],
    ...["PresharedKey = (none)", "MTU = 1420", "ListenPort = 1"],
  ];
  for (const line of inPeer) assertEquals(peerErrors(line).length, 1, line);
  assertStringIncludes(
    peerErrors("AllowedIPs = 10.0.0.0/8 10.1.0.0/16")[0],
    "separated by commas",
  );
  assertStringIncludes(peerErrors("MTU = 1420")[0], "in a section [Interface]");
});

Deno.test("keys of wg-quick are refused where only those of wg are allowed", () => {
  const [message] = errorsOf("[Interface]\nAddress = 10.0.0.1/8", "wg");
  assertStringIncludes(message, "of wg-quick");
  assertEquals(errorsOf("[Peer]\nMTU = 1", "wg").length, 2);
  parseConfig(`[Interface]\nPrivateKey = ${SECRET}`, { format: "wg" });
});

Deno.test("no part of a secret ever gets into a message", () => {
  const spoiled = [
    SECRET.slice(0, -1),
    `${SECRET}=`,
    `"${SECRET}"`,
    SECRET.replace("+", "-"),
    SECRET.slice(2),
    `${SECRET} ${SECRET}`,
  ];
  const texts = spoiled.flatMap((secret) => [
    `[Interface]\nPrivateKey = ${secret}`,
    `[Interface]\nPrivateKey ${secret}`,
    `[Interface]\nPrivatKey = ${secret}`,
    `[Interface]\n${secret}`,
    `${secret}`,
    `[Interface]\nAddress = ${secret}`,
    `[Interface]\nMTU = ${secret}\nTable = ${secret}\nDNS = ${secret}`,
    `[${secret}]`,
    `[Peer]\nPresharedKey = ${secret}`,
    `[Peer]\nPublicKey = ${secret}`,
    `[Peer]\nEndpoint = ${secret}`,
    `[Peer]\nAllowedIPs = ${secret}`,
  ]);
  for (const text of texts) {
    const messages = errorsOf(text).join("\n");
    for (let i = 0; i + 8 <= SECRET.length; i++) {
      const part = SECRET.slice(i, i + 8);
      assert(!messages.includes(part), `${text}\n${messages}`);
    }
  }
});

Deno.test("messages are printable whatever the file contains", () => {
  const noise = "\x1b[2J\u202e\u0000é".repeat(30);
  for (
    const text of [
      `[${noise}]`,
      `[Interface]\nMTU=${noise}`,
      noise,
      `${noise}=`,
    ]
  ) {
    for (const message of errorsOf(text)) {
      assertMatch(message, /^[\x20-\x7e…]+$/);
      assert(message.length < 400);
    }
  }
});

Deno.test("what is printed parses to the same", () => {
  const text = `[Interface]
Address = 10.0.0.1/24
DNS = 1.1.1.1
MTU = 1420
Table = auto
SaveConfig = true
PreUp = a # b
PostUp = c
PreDown = d
PostDown = e
ListenPort = 51820
FwMark = 0xca6c
PrivateKey = ${SECRET}

[Peer]
PublicKey = ${PUBLIC_A}
PresharedKey = ${PRESHARED}
AllowedIPs = 10.0.0.0/8, ::/0
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = 25

[Peer]
PublicKey = ${PUBLIC_B}
`;
  assertEquals(formatConfig(parseConfig(text)), text);
  assertEquals(formatConfig(parseConfig("")), "[Interface]\n\n");
});

Deno.test("random files: no crash, no hang; what is accepted survives printing", () => {
  const random = randomSource(11);
  const pick = <T>(list: readonly T[]): T => list[random(list.length)];
  const lines = [
    ...["[Interface]", "[Peer]", "[peer] # x", "", "# comment", "[Other]", "x"],
    ...[`PublicKey=${PUBLIC_A}`, `PublicKey = ${PUBLIC_B}`, "PublicKey="],
    ...[`PrivateKey=${SECRET}`, `PresharedKey=${PRESHARED}`, "PrivateKey=x"],
    ...["ListenPort=0", "ListenPort=70000", "FwMark=off", "FwMark=0xff"],
    ...["Address=10.0.0.1/8,::1", "Address=x", "DNS=1.1.1.1 a.b", "MTU=1280"],
    ...[
      "Table=off",
      "PostUp=echo # %i",
      "PostUp = ",
      "MTU=",
      "SaveConfig=TRUE",
    ],
    ...["Endpoint=1.2.3.4:5", "Endpoint=[::1]:5", "Endpoint=a.b:5"],
    ...["AllowedIPs=10.1.2.3/8, ::/0", "AllowedIPs=", "AllowedIPs=::/200"],
    ...["PersistentKeepalive=25", "PersistentKeepalive=off", "MTU=1"],
  ];
  const characters = "[]=#, \t\r\0%:/.éaP\u2028";
  let accepted = 0;
  for (let round = 0; round < 20000; round++) {
    const good = round % 2 === 0;
    const file = good ? ["[Interface]"] : [];
    for (let n = random(8); n > 0; n--) {
      let line = pick(lines);
      if (!good && random(6) === 0) {
        const at = random(line.length + 1);
        line = line.slice(0, at) + pick([...characters]) + line.slice(at);
      }
      file.push(line);
    }
    const text = file.join(pick(["\n", "\r\n"]));
    let config;
    try {
      config = parseConfig(text);
    } catch (error) {
      assert(error instanceof ConfigErrors, `${error}\n${text}`);
      assert(error.errors.length > 0);
      continue;
    }
    accepted++;
    const { warnings: _, ...first } = config;
    const printed = formatConfig(first);
    const { warnings, ...second } = parseConfig(printed);
    assertEquals(second, first, text);
    assertEquals(formatConfig(second), printed);
    assert(warnings.every((warning) => warning.includes("is also that of")));
  }
  assert(accepted > 500, `${accepted} accepted`);
});

Deno.test("random bytes are refused or accepted, in linear time", () => {
  const random = randomSource(12);
  for (let round = 0; round < 200; round++) {
    const text = Array.from(
      { length: random(500) },
      () => String.fromCharCode(random(round % 2 ? 128 : 0x10000)),
    ).join("");
    try {
      parseConfig(text);
    } catch (error) {
      assert(error instanceof ConfigErrors);
    }
  }
  const started = performance.now();
  errorsOf("[Interface]\n" + " ".repeat(200_000) + "x");
  errorsOf("[Interface]\nAddress=" + " ,".repeat(100_000) + "x");
  errorsOf("[Interface]\nMTU = " + "1 ".repeat(100_000));
  errorsOf("[".repeat(200_000));
  assert(performance.now() - started < 2000);
});

Deno.test("files are named after interfaces", () => {
  assertEquals(interfaceNameOf("/etc/wireguard/wg0.conf"), "wg0");
  assertEquals(interfaceNameOf("a=+_.-9.conf"), "a=+_.-9");
  for (
    const bad of [
      ...[
        "wg0",
        "/etc/wg0.conf/",
        "sixteen-letters-.conf",
        ".conf",
        "a b.conf",
      ],
      ...["...conf", "/x/é.conf", "wg0.conf.bak"],
    ]
  ) assertEquals(interfaceNameOf(bad), null, bad);
  assert(
    !isInterfaceName("") && !isInterfaceName("..") && isInterfaceName("w"),
  );
});

Deno.test("a file is world accessible if it and its directory are", () => {
  assertEquals(
    worldAccessibleWarning("/etc/wireguard/wg0.conf", 0o100644, 0o40755),
    "Warning: `/etc/wireguard/wg0.conf' is world accessible",
  );
  assertEquals(worldAccessibleWarning("a", 0o100600, 0o40755), null);
  assertEquals(worldAccessibleWarning("a", 0o100644, 0o40700), null);
});
