package server

import "path/filepath"

// Each peer serves one export under the empty name, so that a script can always ask for
// that. nbdkit serves it under any other name, too.

// NBDKit is nbdkit with a plugin and its arguments, and the default number of threads.
// Its socket is in dir.
func NBDKit(dir, name, plugin string, args ...string) Command {
	socket := filepath.Join(dir, name+".sock")
	return Command{
		Name:   "nbdkit " + plugin,
		Args:   append([]string{"nbdkit", "--foreground", "--unix", socket, plugin}, args...),
		Socket: socket,
	}
}

// QEMUNBD is qemu-nbd on a raw file. It accepts as many clients as a multi-conn client
// opens, and passes discards on.
func QEMUNBD(dir, name, file, cache, aio string) Command {
	socket := filepath.Join(dir, name+".sock")
	return Command{
		Name: "qemu-nbd " + cache,
		Args: []string{"qemu-nbd", "--persistent", "--shared=8", "--socket=" + socket,
			"--format=raw", "--cache=" + cache, "--aio=" + aio, "--discard=unmap", file},
		Socket: socket,
	}
}

// QEMUFUSE is qemu-storage-daemon with a raw file, exported by FUSE over the file
// export. With cache "none" it opens the file past the page cache, as disks of VMs
// mostly are; "writeback" is the default of QEMU. Its monitor starts after the export,
// and so shows that the export is ready.
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
