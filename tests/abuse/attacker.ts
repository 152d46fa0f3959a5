import { attacks } from "./attacks.ts";

/* `attacker.ts host port localAddress attack`: one attack in its full form, from a process and an address of its own. */
const [, , host = "", port = "", localAddress = "", name = ""] = process.argv;
const attack = attacks[name];
if (attack === undefined) throw new Error(`unknown attack "${name}"; there are ${Object.keys(attacks).join(", ")}`);
console.log(await attack.run({ host, port: Number(port), localAddress }, attack.full));
process.exit(0);
