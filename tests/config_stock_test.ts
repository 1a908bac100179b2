/**
 * lib/config and lib/uapi against the stock wg: what `wg setconf` makes of a
 * file, on a device in memory, is what our parser makes of it.
 */
import { assert, assertEquals } from "@std/assert";
import { randomSource } from "./config_helpers.ts";
import { ourState, stockState } from "./config_stock.ts";
import { whyNoStockWg } from "./uapi_fake.ts";

const SECRET = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PUBLIC_A = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const PUBLIC_B = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

const why = whyNoStockWg();

Deno.test({
  name: `wg setconf takes the same files and makes the same of them${
    why ? ` (skipped: ${why})` : ""
  }`,
  ignore: why !== null,
  async fn(t): Promise<void> {
    const directory = await Deno.makeTempDir();
    const file = `${directory}/test.conf`;
    const compare = async (text: string): Promise<boolean> => {
      await Deno.writeTextFile(file, text);
      const stock = await stockState(file);
      assertEquals(ourState(text), stock, text);
      return stock !== null;
    };
    try {
      await t.step("one value at a time", async () => {
        const inInterface = [
          ...["ListenPort=0", "ListenPort=65535"],
          ...["ListenPort=007", "ListenPort=-1", "ListenPort=", "ListenPort"],
          ...["listenPORT = 5 1\t8", "Listen Port=3", "ListenPort=1 # 2"],
          ...["FwMark=off", "FwMark=OFF", "FwMark=0", "FwMark=0xffffffff"],
          ...["FwMark=0x100000000", "FwMark=4294967295", "FwMark=4294967296"],
          ...[
            "FwMark=0x",
            "FwMark=0X1",
            "FwMark=0xg",
            "FwMark=-1",
            "FwMark=1x",
          ],
          ...["FwMark=0x00000000000001", "FwMark=010"],
          ...[`FwMark=0x${"0".repeat(40)}1`, `FwMark=${"0".repeat(40)}1`],
          ...["ListenPort=domain", "ListenPort=nosuchservice"],
          ...["ListenPort\u00a0=1", "ListenPort=\u20281", "FwMar\u212a=1"],
          ...["ListenPort=1 2 #", "[Interface]x", "#\0", "\ufeff"],
          ...[`PrivateKey=${SECRET}`, `PrivateKey=${SECRET}=`, "PrivateKey="],
          ...[`PrivateKey=${SECRET.replace("k=", "l=")}`, "PrivateKey=x"],
          ...["Address=1.2.3.4", "Unknown=1", "x", "=", "[peer", "#", "\r\v\f"],
        ];
        for (const line of inInterface) await compare(`[Interface]\n${line}\n`);
        const inPeer = [
          ...["", "Endpoint=1.2.3.4:5", "Endpoint=[::1]:65535", "Endpoint="],
          ...["Endpoint=1.2.3.4", "Endpoint=1.2.3.4:", "Endpoint=[::1]"],
          "Endpoint = [::FFFF:1.2.3.4]:5",
          ...["AllowedIPs=10.0.0.0/8", "AllowedIPs=10.1.2.3/8,::1/0"],
          ...["AllowedIPs=1.2.3.4", "AllowedIPs=::1", "AllowedIPs=1.2.3.4/33"],
          ...["AllowedIPs=::/129", "AllowedIPs=1.2.3.4/", "AllowedIPs=::/0,"],
          ...["AllowedIPs=,", "AllowedIPs=1.2.3/8", "AllowedIPs=01.2.3.4/8"],
          ...["AllowedIPs=1.2.3.4/08", "AllowedIPs=1.2.3.4 / 8 , ::/0"],
          ...["AllowedIPs=::/0\nAllowedIPs=10.0.0.0/8", "AllowedIPs=1.2.3.4/x"],
          ...["PersistentKeepalive=OFF", "PersistentKeepalive=0x1"],
          ...["PersistentKeepalive=+1", "PersistentKeepalive=0001"],
          ...["AllowedIPs=", "AllowedIPs=+1.2.3.4/8", "AllowedIPs=::1/+8"],
          ...["AllowedIPs=::/0,\u00a0::1/128", "Endpoint=1.2.3.4:ntp"],
          ...["Endpoint=[::1]:nosuchservice", `PublicKey=${PUBLIC_B}`],
          ...["PersistentKeepalive=off", "PersistentKeepalive=65535"],
          ...["PersistentKeepalive=65536", "PersistentKeepalive=x"],
          ...[`PresharedKey=${SECRET}`, "PresharedKey=", "PresharedKey=x"],
          "ListenPort=1",
        ];
        for (const line of inPeer) {
          await compare(`[Peer]\nPublicKey=${PUBLIC_A}\n${line}\n`);
        }
        await compare("\ufeff[Interface]\nListenPort=1\n");
        await compare("\ufeff# comment\n[Interface]\nListenPort=1\n");
        await compare("[Interface]\rListenPort=1\r");
        await compare("[Peer]\n");
        await compare("ListenPort=1\n");
        await compare("");
        await compare(`[ Inter face ]\nListenPort=1`);
      });
      await t.step("where we differ on purpose", async () => {
        const peer = `[Peer]\nPublicKey=${PUBLIC_A}\n`;
        for (
          const [text, stockTakesIt] of [
            // getaddrinfo takes ports modulo 65536.
            ["[Interface]\nListenPort=65536", true],
            [`${peer}Endpoint=1.2.3.4:65536`, true],
            // No packet can be sent to port 0.
            [`${peer}Endpoint=1.2.3.4:0`, true],
            // Ambiguous without brackets; and what inet_aton takes.
            [`${peer}Endpoint=::1:5`, true],
            [`${peer}Endpoint=[1.2.3.4]:5`, true],
            [`${peer}Endpoint=1.2.3:5`, true],
            // Only getaddrinfo takes a sign.
            ["[Interface]\nListenPort=+1", true],
            // wg reads no further than to the NUL.
            ["[Interface]\nListenPort=1\0", true],
          ] as const
        ) {
          await Deno.writeTextFile(file, text);
          assertEquals(await stockState(file) !== null, stockTakesIt, text);
          assertEquals(ourState(text) !== null, !stockTakesIt, text);
        }
      });
      await t.step("random files", async () => {
        const random = randomSource(21);
        const lines = [
          ...["[Interface]", "[Peer]", "# comment", "", " [PEER] #"],
          ...[`PublicKey=${PUBLIC_A}`, `PublicKey = ${PUBLIC_B}`],
          ...[`PresharedKey=${SECRET}`, "Endpoint=1.2.3.4:5"],
          ...["AllowedIPs=10.1.2.3/8, ::/0", "AllowedIPs=192.0.2.0/24"],
          ...["PersistentKeepalive=25", "PersistentKeepalive=off"],
          ...["Endpoint = [2001:db8::1]:51820", "allowedips = fd00::/8"],
        ];
        let accepted = 0;
        for (let round = 0; round < 150; round++) {
          const text = ["[Interface]", `PrivateKey=${SECRET}`];
          for (let n = random(10); n > 0; n--) {
            const line = lines[random(lines.length)];
            text.push(line);
            if (line.toLowerCase().includes("[peer]") && random(8)) {
              text.push(`PublicKey=${random(2) ? PUBLIC_A : PUBLIC_B}`);
            }
          }
          if (await compare(text.join("\n") + "\n")) accepted++;
        }
        assert(accepted > 30, `${accepted} accepted`);
      });
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});
