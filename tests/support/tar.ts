/** One member of an archive: a file with data, or a directory when data is left out. */
export interface TarMember {
  readonly name: string;
  readonly data?: Uint8Array;
  /** Permission bits; 0644 for files, 0755 for directories when left out. */
  readonly mode?: number;
}

const BLOCK = 512;

/** A POSIX ustar archive of these members, as PutArchive takes it. Names of at most 100 bytes. */
export function tar(members: readonly TarMember[]): Uint8Array {
  const end = new Uint8Array(2 * BLOCK);
  return Buffer.concat([...members.flatMap((member) => [header(member), padded(member.data)]), end]);
}

function header({ name, data, mode = data ? 0o644 : 0o755 }: TarMember): Uint8Array {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, digits: number) =>
    block.write(`${value.toString(8).padStart(digits, "0")}\0`, at);
  block.write(name, 0, 100);
  octal(mode, 100, 7);
  octal(0, 108, 7); // uid
  octal(0, 116, 7); // gid
  octal(data?.length ?? 0, 124, 11);
  octal(0, 136, 11); // mtime
  block.write("        ", 148); // the checksum is counted with its own field blank
  block.write(data ? "0" : "5", 156);
  block.write("ustar\x0000", 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

function padded(data: Uint8Array = new Uint8Array()): Uint8Array {
  const block = new Uint8Array(Math.ceil(data.length / BLOCK) * BLOCK);
  block.set(data);
  return block;
}
