/** A system and configurations for the tests of plans. */
import { parseConfig } from "../lib/config.ts";
import type { Facts, Job } from "../lib/quick_plan.ts";

/** A key. */
export const KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/** A system with all programs, and nothing special. */
export const FACTS: Facts = {
  endpointMtus: [],
  deviceAddresses: [],
  deviceRanges: [],
  deviceMark: 0,
  freeTable: 51820,
  priority: { "-4": 32765, "-6": 32765 },
  isApart: false,
  srcValidMark: "0",
  firewall: "nft",
  dns: "resolvconf",
  dnsPrefix: "",
  shell: "bash",
};

/** A file with these lines of [Interface] and of [Peer]. */
export function job(lines: string, peer = ""): Job {
  const text = `[Interface]\nPrivateKey = ${KEY}\n${lines}\n` +
    `[Peer]\nPublicKey = ${KEY}\n${peer}\n`;
  const config = parseConfig(text, { file: "wg0.conf" });
  return {
    name: "wg0",
    path: "/etc/wireguard/wg0.conf",
    config,
    daemonOptions: [],
  };
}
