package server

import "path/filepath"

// The peers serve one export under the empty name, and under any other that
// is asked for where they can (nbdkit), so that a script may always ask for
// the empty one.

// NBDKit is nbdkit with a plugin and its arguments, threads as by default.
// Its socket goes to dir.
func NBDKit(dir, name, plugin string, args ...string) Command {
	socket := filepath.Join(dir, name+".sock")
	return Command{
		Name:   "nbdkit " + plugin,
		Args:   append([]string{"nbdkit", "--foreground", "--unix", socket, plugin}, args...),
		Socket: socket,
	}
}

// QEMUNBD is qemu-nbd on a raw file, with as many clients as a multi-conn
// client opens, discards passed on.
func QEMUNBD(dir, name, file, cache, aio string) Command {
	socket := filepath.Join(dir, name+".sock")
	return Command{
		Name: "qemu-nbd " + cache,
		Args: []string{"qemu-nbd", "--persistent", "--shared=8", "--socket=" + socket,
			"--format=raw", "--cache=" + cache, "--aio=" + aio, "--discard=unmap", file},
		Socket: socket,
	}
}

// QEMUFUSE is qemu-storage-daemon with a raw file, exported by FUSE over the
// file export. With cache "none" it opens the file as disks of VMs mostly are,
// past the page cache; with "writeback" as it does if nobody says anything. Its
// monitor comes after the export, and so says when it is ready.
func QEMUFUSE(dir, name, file, export, cache string) Command {
	socket := filepath.Join(dir, name+".sock")
	opened := "cache.direct=on,aio=native"
	if cache == "writeback" {
		opened = "cache.direct=off,aio=threads"
	}
	return Command{
		Name: "qemu-storage-daemon FUSE " + cache,
		Args: []string{"qemu-storage-daemon",
			"--blockdev", "driver=file,node-name=file," + opened + ",discard=unmap,filename=" + file,
			"--blockdev", "driver=raw,node-name=disk,file=file",
			"--export", "type=fuse,id=fuse,node-name=disk,writable=on,mountpoint=" + export,
			"--chardev", "socket,id=monitor,server=on,wait=off,path=" + socket,
			"--monitor", "chardev=monitor"},
		Socket: socket,
	}
}
