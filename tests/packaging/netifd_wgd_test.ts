/**
 * netifd's handler with wgd itself, in a namespace: an interface is set up by
 * its options, changed and taken down, by a busybox shell that netifd would
 * wait for.
 */
import { assert, assertEquals } from "@std/assert";
import { labTest } from "../netns/harness.ts";
import { attempt } from "../netns/process.ts";
import { wgdCommand } from "../netns/requirements.ts";
import { generateKeys } from "../netns/tunnel.ts";
import { ash, noBusybox, UCI } from "./ash.ts";

const PSK = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

labTest("netifd's handler sets up, renews and takes down an interface of wgd", {
  skip: noBusybox,
}, async (lab) => {
  const name = await lab.interfaceName();
  const [own, office, other] = await Promise.all([
    generateKeys(),
    generateKeys(),
    generateKeys(),
  ]);
  const before = await lab.a.state();
  const run = async (line: string, more = ""): Promise<string[]> => {
    const { code, notes, err } = await ash(lab.directory, {
      stubs: `${UCI}
WGD_DIRECTORY=$DIRECTORY/run
${name}__private_key=${own.private} ${name}__listen_port=51899
${name}__mtu=1380 ${name}__fwmark=0x77 ${name}__addresses=10.9.0.1/24
sections__wireguard_${name}="office other off"
office__public_key=${office.public} office__preshared_key=${PSK}
office__allowed_ips="10.0.0.0/8 fd00::/8" office__route_allowed_ips=1
office__endpoint_host=10.77.0.2 office__persistent_keepalive=25
office__description="The office"
other__public_key=${other.public} other__endpoint_host=fd77::2
other__endpoint_port=1234 other__allowed_ips=192.0.2.1
off__disabled=1 off__public_key=${own.public} off__allowed_ips=192.0.2.2
${more}
INCLUDE_ONLY=1`,
      script: "openwrt/wgd.proto",
      line,
      wgd: wgdCommand(),
      within: (argv) => lab.a.argv(["timeout", "60", ...argv]),
    }, { STUBBED: "" });
    assertEquals(code, 0, err);
    return notes;
  };
  const show = async (): Promise<string[][]> => {
    const dump = await lab.a.run(["wg", "show", name, "dump"]);
    return dump.trimEnd().split("\n").map((line) => line.split("\t"));
  };

  const set = await run(`proto_wgd_setup ${name}`);
  assertEquals(set, [
    `proto_init_update|${name}|1|`,
    "proto_add_ipv4_address|10.9.0.1|24|",
    "proto_add_ipv4_route|10.0.0.0|8|",
    "proto_add_ipv6_route|fd00::|8|",
    `proto_send_update|${name}|`,
    `proto_add_host_dependency|${name}|10.77.0.2||`,
    `proto_add_host_dependency|${name}|fd77::2||`,
  ]);
  const unchanging = (peer: string[]): string[] => [
    ...peer.slice(0, 4),
    peer[7],
  ];
  const [device, ...peers] = await show();
  assertEquals(device, [own.private, own.public, "51899", "0x77"]);
  assertEquals(peers.map(unchanging), [
    [office.public, PSK, "10.77.0.2:51820", "10.0.0.0/8,fd00::/8", "25"],
    [other.public, "(none)", "[fd77::2]:1234", "192.0.2.1/32", "off"],
  ]);
  const link = await lab.a.ip("link", "show", name);
  assert(link.includes("mtu 1380") && link.includes("UP"), link);

  await run(`proto_wgd_renew ${name}`, "office__persistent_keepalive=7");
  assertEquals((await show())[1][7], "7");

  await run(`proto_wgd_teardown ${name}`);
  const gone = await attempt(lab.a.argv(["ip", "link", "show", name]));
  assertEquals(gone.code, 1);
  assertEquals(await lab.a.state(), before);
});
