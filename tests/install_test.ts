/**
 * `wgd install` and `wgd uninstall` in a directory that stands for a machine:
 * what is written where, what is kept, and that nothing is left.
 */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { assertRejects, assertStringIncludes } from "@std/assert";
import { install } from "../lib/commands/install.ts";
import {
  detectSystem,
  placeOf,
  type System,
} from "../lib/commands/install_files.ts";
import { uninstall } from "../lib/commands/uninstall.ts";
import { CliError } from "../lib/commands/errors.ts";
import { findCommand } from "../lib/commands/table.ts";
import type { CommandContext } from "../lib/commands/context.ts";

interface Machine {
  readonly root: string;
  readonly program: string;
  readonly ctx: CommandContext;
  said: string;
}

function withMachine(
  name: string,
  fn: (machine: Machine) => Promise<void>,
): void {
  Deno.test(name, async () => {
    const directory = Deno.makeTempDirSync({ prefix: "wgd-test-" });
    const root = `${directory}/root`;
    Deno.mkdirSync(root);
    const program = `${directory}/wgd-linux-x86_64`;
    Deno.writeTextFileSync(program, "#!/bin/sh\necho program\n", {
      mode: 0o700,
    });
    const machine: Machine = {
      root,
      program,
      said: "",
      ctx: {
        args: [],
        options: {},
        out: (text) => void (machine.said += text),
        err: (line) => void (machine.said += `${line}\n`),
        readStdin: () => Promise.resolve(new Uint8Array()),
        env: () => undefined,
        isTerminal: false,
      },
    };
    try {
      await fn(machine);
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  });
}

/** Files under a directory, with their modes. */
function tree(directory: string, under = ""): string[] {
  return [...Deno.readDirSync(directory + under)].flatMap((entry) => {
    const path = `${under}/${entry.name}`;
    if (entry.isDirectory) return tree(directory, path);
    const { mode } = Deno.statSync(directory + path);
    return [`${((mode ?? 0) & 0o777).toString(8)} ${path}`];
  }).sort();
}

/** Files that every system gets, as far as there are commands for them. */
const DOCUMENTS = [
  ...findCommand("man") ? ["644 /usr/share/man/man8/wgd.8"] : [],
  ...findCommand("completions")
    ? [
      "644 /usr/share/bash-completion/completions/wgd",
      "644 /usr/share/fish/vendor_completions.d/wgd.fish",
      "644 /usr/share/zsh/site-functions/_wgd",
    ]
    : [],
];
const MANIFEST = "644 /usr/lib/wgd/manifest.json";
const FILES: Readonly<Record<System, string[]>> = {
  systemd: [
    "644 /etc/default/wgd",
    "644 /usr/lib/systemd/system/wgd@.service",
  ],
  openrc: ["644 /etc/conf.d/wgd", "755 /etc/init.d/wgd"],
  openwrt: [
    "644 /etc/config/wgd",
    "755 /etc/init.d/wgd",
    "755 /lib/netifd/proto/wgd.sh",
    "755 /usr/libexec/wgd-hold",
  ],
  none: [],
};

for (const system of Object.keys(FILES) as System[]) {
  withMachine(
    `install for ${system}, and uninstall leaves nothing`,
    async (m) => {
      const place = { root: m.root, prefix: "/usr", system };
      await install(place, m.program, m.ctx);
      const expected = [
        "755 /usr/bin/wgd",
        MANIFEST,
        ...FILES[system],
        ...DOCUMENTS,
      ].sort();
      assertEquals(tree(m.root), expected);
      assertEquals(
        Deno.readTextFileSync(`${m.root}/usr/bin/wgd`),
        Deno.readTextFileSync(m.program),
      );
      for (const line of expected.filter((line) => line !== MANIFEST)) {
        assertStringIncludes(m.said, `installed ${m.root}${line.slice(4)}\n`);
      }
      uninstall(place, m.ctx);
      assertEquals([...Deno.readDirSync(m.root)], []);
    },
  );
}

withMachine(
  "the service runs the program where it was installed",
  async (m) => {
    for (const system of ["systemd", "openrc", "openwrt"] as const) {
      const place = { root: m.root, prefix: "/opt/vpn", system };
      await install(place, m.program, m.ctx);
      for (const line of tree(m.root)) {
        const path = line.slice(4);
        if (path.includes("manifest") || path.includes("/share/")) continue;
        const text = Deno.readTextFileSync(m.root + path);
        assert(!/\/usr\/(bin|libexec)\/wgd/.test(text), path);
      }
      uninstall(place, m.ctx);
    }
    assertEquals([...Deno.readDirSync(m.root)], []);
  },
);

withMachine("what was there before stays", async (m) => {
  const place = { root: m.root, prefix: "/usr", system: "systemd" } as const;
  Deno.mkdirSync(`${m.root}/usr/bin`, { recursive: true });
  Deno.writeTextFileSync(`${m.root}/usr/bin/other`, "other");
  await install(place, m.program, m.ctx);
  uninstall(place, m.ctx);
  assertEquals(tree(m.root), [
    `${tree(m.root)[0].slice(0, 3)} /usr/bin/other`,
  ]);
});

withMachine("a file of somebody else is not replaced", async (m) => {
  const place = { root: m.root, prefix: "/usr", system: "systemd" } as const;
  Deno.mkdirSync(`${m.root}/usr/bin`, { recursive: true });
  Deno.writeTextFileSync(`${m.root}/usr/bin/wgd`, "a package's");
  await assertRejects(
    () => install(place, m.program, m.ctx),
    CliError,
    "/usr/bin/wgd: not of an earlier wgd install",
  );
  assertEquals(Deno.readTextFileSync(`${m.root}/usr/bin/wgd`), "a package's");
  assertEquals(tree(m.root).length, 1);
  assertThrows(
    () => uninstall(place, m.ctx),
    CliError,
    "nothing was installed",
  );
});

withMachine(
  "a new version replaces the old one, and keeps what was changed",
  async (m) => {
    const place = { root: m.root, prefix: "/usr", system: "systemd" } as const;
    await install(place, m.program, m.ctx);
    const config = `${m.root}/etc/default/wgd`;
    Deno.writeTextFileSync(config, "LOG_LEVEL=verbose\n");
    Deno.writeTextFileSync(m.program, "#!/bin/sh\necho newer\n");
    m.said = "";
    await install(place, m.program, m.ctx);
    assertMatch(Deno.readTextFileSync(`${m.root}/usr/bin/wgd`), /newer/);
    assertEquals(Deno.readTextFileSync(config), "LOG_LEVEL=verbose\n");
    assertStringIncludes(m.said, `kept ${config}, as changed\n`);
    const unit = `${m.root}/usr/lib/systemd/system/wgd@.service`;
    Deno.writeTextFileSync(unit, "changed");
    uninstall(place, m.ctx);
    assertEquals(
      tree(m.root).map((line) => line.slice(4)),
      ["/etc/default/wgd", "/usr/lib/systemd/system/wgd@.service"],
    );
  },
);

withMachine("an installation that is interrupted can be removed", async (m) => {
  const place = { root: m.root, prefix: "/usr", system: "openwrt" } as const;
  // A file where a directory must be: the installation stops half way.
  const stop = new Error("full");
  const ctx: CommandContext = {
    ...m.ctx,
    out: (text) => {
      if (text.includes("init.d")) throw stop;
    },
  };
  await assertRejects(() => install(place, m.program, ctx), Error, "full");
  assert(tree(m.root).length > 1);
  uninstall(place, m.ctx);
  assertEquals([...Deno.readDirSync(m.root)], []);
});

withMachine("the service manager is found by what a system has", (m) => {
  const has = (path: string, system: System): void => {
    const directory = path.replace(/\/[^/]*$/, "");
    Deno.mkdirSync(m.root + directory, { recursive: true });
    Deno.writeTextFileSync(m.root + path, "");
    assertEquals(detectSystem(m.root), system);
  };
  assertEquals(detectSystem(m.root), "none");
  has("/sbin/openrc-run", "openrc");
  has("/usr/lib/systemd/systemd", "systemd");
  has("/etc/openwrt_release", "openwrt");
  return Promise.resolve();
});

withMachine("paths that a unit could misread are refused", (m) => {
  for (const prefix of ["relative", "/with space", "/a\nb", "/%i", "/$HOME"]) {
    assertThrows(
      () => placeOf({ ...m.ctx, options: { prefix } }),
      CliError,
      "expected an absolute path",
    );
  }
  assertEquals(placeOf({ ...m.ctx, options: { prefix: "/opt/", root: "/" } }), {
    prefix: "/opt",
    root: "",
  });
  return Promise.resolve();
});
