package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"openvstorage/scripts/fio"
	"openvstorage/scripts/server"
)

// workingSet is what the loads touch: a fifth of the default write buffer.
const workingSet = 400 * mib

// contender is a running server with a disk that was written in full.
type contender struct {
	name   string
	uri    string
	socket string
	export string
	file   string // fio opens this file: the raw disk, or a mount's
	mount  string // ours: where the vDisks are files
	proc   *server.Process
	ovs    *server.Ovs // ours only
}

// disk is the name of our vDisk.
const disk = "disk"

// rest brings it to the state that every run starts from: nothing is waiting
// to be uploaded, nothing is dirty.
func (c *contender) rest() error {
	if c.ovs != nil {
		if _, err := c.ovs.Run("vdisk", "sync", disk); err != nil {
			return err
		}
	}
	settle()
	return nil
}

// fio runs a load against it.
func (c *contender) fio(args ...string) (fio.Result, error) {
	if c.file != "" {
		return fio.Run(append(args, "--ioengine=libaio", "--direct=1", "--filename="+c.file)...)
	}
	return fio.Run(append(args, "--ioengine=nbd", "--uri="+c.uri)...)
}

// fill writes size bytes, with checksums that a later read can verify.
func (c *contender) fill(size int64) error {
	_, err := c.fio("--rw=write", "--bs=1m", "--iodepth=4", "--size="+strconv.FormatInt(size, 10),
		"--verify=crc32c", "--verify_interval=4096", "--do_verify=0", "--end_fsync=1")
	return err
}

// ring starts the contenders when they are first asked for.
type ring struct {
	dir     string
	options options
	bin     string
	up      map[string]*contender
}

func newRing(dir string, o options) *ring {
	return &ring{dir: dir, options: o, up: map[string]*contender{}}
}

func (r *ring) close() {
	for name := range r.up {
		r.stop(name)
	}
}

// stop ends a contender, so that another of its kind can start.
func (r *ring) stop(name string) {
	if c := r.up[name]; c != nil && c.proc != nil {
		c.proc.Kill()
		for _, mount := range []string{c.mount, c.file} {
			if mount != "" {
				_ = syscall.Unmount(mount, syscall.MNT_DETACH) // if it was one
			}
		}
	}
	delete(r.up, name)
	if name == ours {
		delete(r.up, oursFUSE)
	}
}

// Names of the contenders.
const (
	ours             = "ovs"
	nbdkitMemory     = "nbdkit memory"
	nbdkitFile       = "nbdkit file"
	qemuWriteback    = "qemu-nbd writeback"
	qemuWritethrough = "qemu-nbd writethrough"
	rawDisk          = "raw disk"
	oursFUSE         = "ovs FUSE"
	qemuFUSE         = "qemu-storage-daemon FUSE"
	qemuFUSECached   = "qemu-storage-daemon FUSE writeback"
)

// get returns a running and filled contender.
func (r *ring) get(name string) (*contender, error) {
	if c := r.up[name]; c != nil {
		return c, nil
	}
	c, err := r.start(name)
	if err != nil {
		return nil, err
	}
	r.up[name] = c
	return c, nil
}

func (r *ring) start(name string) (*contender, error) {
	switch name {
	case ours:
		if r.options.standIn {
			return r.serve(name, workingSet, r.nbdkitFile("standin"))
		}
		return r.startOvs(workingSet)
	case nbdkitMemory:
		return r.faster(name, r.nbdkitMemory("sparse", workingSet), r.nbdkitMemory("malloc", workingSet))
	case nbdkitFile:
		return r.serve(name, workingSet, r.nbdkitFile("nbdkit"))
	case qemuWriteback:
		return r.faster(name, r.qemu("writeback", "threads"), r.qemu("writeback", "io_uring"))
	case qemuWritethrough:
		return r.faster(name, r.qemu("writethrough", "threads"), r.qemu("writethrough", "io_uring"))
	case oursFUSE:
		// The same process and vDisk as ours, through the other door.
		c, err := r.get(ours)
		if err != nil {
			return nil, err
		}
		return &contender{name: name, file: filepath.Join(c.mount, disk+".raw"), ovs: c.ovs}, nil
	case qemuFUSE, qemuFUSECached:
		cache := "none"
		if name == qemuFUSECached {
			cache = "writeback"
		}
		file, err := r.file("qemu-fuse-"+cache, workingSet)
		if err != nil {
			return nil, err
		}
		export, err := r.file("qemu-fuse-export-"+cache, 0)
		if err != nil {
			return nil, err
		}
		p, err := server.Start(server.QEMUFUSE(r.dir, "qemu-fuse-"+cache, file, export, cache))
		if err != nil {
			return nil, err
		}
		c := &contender{name: name, file: export, proc: p}
		return c, c.fill(workingSet)
	case rawDisk:
		file, err := r.file("raw", workingSet)
		if err != nil {
			return nil, err
		}
		c := &contender{name: name, file: file}
		return c, c.fill(workingSet)
	}
	return nil, fmt.Errorf("no contender is called %q", name)
}

// recipe makes the command of a server, and the files it needs.
type recipe func() (server.Command, error)

func (r *ring) nbdkitMemory(allocator string, size int64) recipe {
	return func() (server.Command, error) {
		c := server.NBDKit(r.dir, "memory-"+allocator+strconv.FormatInt(size/mib, 10), "memory", strconv.FormatInt(size, 10), "allocator="+allocator)
		c.Name += " " + allocator
		return c, nil
	}
}

func (r *ring) nbdkitFile(name string) recipe {
	return func() (server.Command, error) {
		file, err := r.file(name, workingSet)
		return server.NBDKit(r.dir, name, "file", file), err
	}
}

func (r *ring) qemu(cache, aio string) recipe {
	return func() (server.Command, error) {
		file, err := r.file("qemu-"+cache, workingSet)
		c := server.QEMUNBD(r.dir, "qemu-"+cache+"-"+aio, file, cache, aio)
		c.Name += " " + aio
		return c, err
	}
}

// file makes an empty file.
func (r *ring) file(name string, size int64) (string, error) {
	file := filepath.Join(r.dir, name+".raw")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return file, f.Truncate(size)
}

// serve starts a server and fills its disk.
func (r *ring) serve(name string, size int64, make recipe) (*contender, error) {
	command, err := make()
	if err != nil {
		return nil, err
	}
	p, err := server.Start(command)
	if err != nil {
		return nil, err
	}
	c := &contender{name: name, uri: command.URI(""), socket: command.Socket, proc: p}
	if err := c.fill(size); err != nil {
		p.Kill()
		return nil, err
	}
	return c, nil
}

// faster tries a peer in each of its settings and keeps the better one.
func (r *ring) faster(name string, recipes ...recipe) (*contender, error) {
	var best *contender
	var most float64
	for _, recipe := range recipes {
		c, err := r.serve(name, workingSet, recipe)
		if err != nil {
			return nil, err
		}
		settle()
		f, err := c.fio("--rw=randwrite", "--bs=4k", "--iodepth=32", fmt.Sprint("--size=", int64(workingSet)), "--time_based", "--runtime=1")
		if err != nil {
			c.proc.Kill()
			return nil, err
		}
		if best == nil || f.IOPS > most {
			c, best, most = best, c, f.IOPS
		}
		if c != nil {
			c.proc.Kill()
		}
	}
	fmt.Printf("(%s: taking %s)\n", name, best.proc.Name)
	return best, nil
}

// startOvs starts ovs on a new directory, with one vDisk, written in full.
func (r *ring) startOvs(size int64, flags ...string) (*contender, error) {
	if r.bin == "" {
		bin, err := server.Build(r.dir)
		if err != nil {
			return nil, err
		}
		r.bin = bin
	}
	data, err := os.MkdirTemp(r.dir, "data-")
	if err != nil {
		return nil, err
	}
	mount := ""
	if _, err := os.Stat("/dev/fuse"); err == nil && os.Geteuid() == 0 {
		if mount, err = os.MkdirTemp(r.dir, "mount-"); err != nil {
			return nil, err
		}
		flags = append(slices.Clip(flags), "--mount", mount)
	}
	o := &server.Ovs{Bin: r.bin, Data: data, Flags: flags}
	p, err := server.Start(o.Up())
	if err != nil {
		return nil, err
	}
	c := &contender{name: ours, uri: p.URI(disk), socket: p.Socket, export: disk, proc: p, ovs: o, mount: mount}
	if size > 0 {
		if err = c.create(size); err == nil {
			err = c.calm()
		}
		if err != nil {
			p.Kill()
			return nil, fmt.Errorf("%w\n%s", err, p.Output())
		}
	}
	return c, nil
}

// create makes our vDisk and writes it in full.
func (c *contender) create(size int64) error {
	if _, err := c.ovs.Run("vdisk", "create", disk, "--size", strconv.FormatInt(size, 10)); err != nil {
		return err
	}
	return c.fill(size)
}

// calm returns when a new server has finished its own background work. For some seconds
// after its start it pre-writes the files of its buffer, and no command waits for that.
// A load beside that is slower, and is charged with the cost.
func (c *contender) calm() error {
	const look, longest = 250 * time.Millisecond, 20 * time.Second
	if err := c.rest(); err != nil {
		return err
	}
	for waited := time.Duration(0); waited < longest; waited += look {
		before, err := c.proc.CPU()
		if err != nil {
			return err
		}
		time.Sleep(look)
		after, err := c.proc.CPU()
		if err != nil || after-before < look/10 {
			return err
		}
	}
	return nil // it never is, and so it is when it is measured
}
