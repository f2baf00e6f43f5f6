package volumedriver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"openvstorage/backend"
	"openvstorage/backend/fault"
	"openvstorage/device"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/writebuffer"
)

// TestLife runs testdata/life.txt, which tells what its commands do.
func TestLife(t *testing.T) {
	text, err := os.ReadFile("testdata/life.txt")
	must(t, err)
	for _, script := range strings.Split(string(text), "\n== ")[1:] {
		title, lines, _ := strings.Cut(script, "\n")
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			s := &lifeScript{t: t, ctx: soon(t), users: map[string]func(){}}
			s.start(crashdisk.New())
			t.Cleanup(func() { s.stop() })
			s.run("create", []string{"v", "1024"})
			for line := range strings.Lines(lines) {
				s.line, _, _ = strings.Cut(line, "#")
				s.line = strings.TrimSpace(s.line)
				if words := strings.Fields(s.line); len(words) > 0 {
					s.run(words[0], words[1:])
				}
			}
		})
	}
}

// lifeScript is one script at work.
type lifeScript struct {
	t     *testing.T
	ctx   context.Context
	line  string
	fs    *crashdisk.FS
	rig   *rig
	back  *fault.Store
	away  *fault.Injected
	users map[string]func() // by the name opened: gives it back
}

func (s *lifeScript) fatal(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s: %s", s.line, fmt.Sprintf(format, args...))
}

func (s *lifeScript) must(err error) {
	s.t.Helper()
	if err != nil {
		s.fatal("%v", err)
	}
}

func (s *lifeScript) number(word string) int {
	n, err := strconv.Atoi(word)
	s.must(err)
	return n
}

// start opens a host on a disk.
func (s *lifeScript) start(fs *crashdisk.FS) {
	var err error
	s.fs = fs
	s.rig, err = openRig(fs, func(o *Options) {
		s.back = fault.New(o.Backend)
		o.Backend = s.back
	})
	s.must(err)
}

// stop ends the host. One whose disk was taken away, or whose backend is, may
// complain.
func (s *lifeScript) stop() error {
	for name, release := range s.users {
		release()
		delete(s.users, name)
	}
	return s.rig.close()
}

// device opens a vDisk or a snapshot for a moment.
func (s *lifeScript) device(name string, use func(d device.Reader) error) error {
	d, release, err := s.rig.host.OpenDevice(s.ctx, name)
	if err != nil {
		return err
	}
	defer release()
	return use(d)
}

// content is what cluster addr holds in version v: all clusters differ.
func content(addr, n, v int) []byte {
	var b []byte
	for i := range n {
		b = append(b, pattern(v*10000+addr+i, 1)...)
	}
	return b
}

// kindsOfError are the words after "refused".
var kindsOfError = map[string]error{
	"exists": ErrExists, "missing": ErrNotFound, "clones": ErrHasChildren, "invalid": ErrInvalid, "halted": ErrHalted, "busy": ErrBusy,
}

// run does one command.
func (s *lifeScript) run(command string, args []string) {
	s.t.Helper()
	switch command {
	case "refused":
		kind, err := kindsOfError[args[0]], s.try(args[1], args[2:])
		if kind == nil || !errors.Is(err, kind) {
			s.fatal("it ends with: %v", err)
		}
	case "restart":
		s.must(s.stop())
		s.start(s.fs)
	case "kill", "cut":
		image := s.fs.Kill()
		if command == "cut" {
			image = s.fs.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
		}
		_ = s.stop()
		s.away = nil
		s.start(image)
	case "away":
		s.away = s.back.Add(fault.Rule{Err: errors.New("nobody answers")})
	case "back":
		s.away.Remove()
	case "lose":
		s.must(s.stop())
		s.must(s.fs.RemoveAll("/data/" + args[0]))
		s.start(s.fs)
	case "accept":
		list, err := s.rig.host.List(s.ctx)
		s.must(errors.Join(err, s.stop()))
		for _, i := range list {
			dir := path.Join("/data/buffer", i.ID.String())
			s.must(s.fs.MkdirAll(dir, 0o755))
			f, err := s.fs.OpenFile(path.Join(dir, writebuffer.AcceptLoss), disk.Write|disk.Create, 0o600)
			s.must(err)
			s.must(f.Close())
		}
		s.start(s.fs)
	case "damage":
		s.must(s.stop())
		s.damage(args[0], s.number(args[1]), s.number(args[2]))
		s.start(s.fs)
	default:
		if !s.inspect(command, args) {
			s.must(s.try(command, args))
		}
	}
}

// try does a command that may be refused.
func (s *lifeScript) try(command string, args []string) error {
	n := func(i int) int { return s.number(args[i]) }
	h := s.rig.host
	name, snap, _ := strings.Cut(args[0], "@")
	switch command {
	case "create":
		_, err := h.Create(s.ctx, name, uint64(n(1))*4096)
		return err
	case "use":
		_, release, err := h.OpenDevice(s.ctx, args[0])
		s.users[args[0]] = release
		return err
	case "leave":
		s.users[args[0]]()
		delete(s.users, args[0])
		return nil
	case "resize":
		return h.Resize(s.ctx, name, uint64(n(1))*4096)
	case "rename":
		return h.Rename(s.ctx, name, args[1])
	case "delete":
		if snap != "" {
			return h.SnapshotDelete(s.ctx, name, snap)
		}
		return h.Delete(s.ctx, name)
	case "snapshot":
		_, err := h.SnapshotCreate(s.ctx, name, snap)
		return err
	case "clone":
		_, err := h.Clone(s.ctx, name, snap, args[1], nil)
		return err
	case "rollback":
		return h.Rollback(s.ctx, name, snap)
	case "sync":
		return h.Sync(s.ctx, name, nil)
	case "checkpoint":
		v := volumeOf(s.t, s.rig, name)
		return cmp.Or(v.Sync(s.ctx, nil), v.store.checkpointTo(s.ctx, v.buf.Written()))
	}
	return s.device(args[0], func(d device.Reader) error {
		switch command {
		case "open":
			return nil
		case "read":
			return d.Read(s.ctx, make([]byte, n(2)*4096), int64(n(1))*4096)
		}
		w, ok := d.(device.Device)
		if !ok {
			s.fatal("it cannot be written to")
		}
		switch command {
		case "write":
			return w.Write(s.ctx, []device.Span{{Off: int64(n(1)) * 4096, Data: content(n(1), n(2), n(3))}})
		case "flush":
			return w.Flush(s.ctx)
		case "trim":
			return w.Trim(s.ctx, int64(n(1))*4096, int64(n(2))*4096)
		case "zero":
			return w.Zero(s.ctx, int64(n(1))*4096, int64(n(2))*4096, false)
		}
		s.fatal("no such command")
		return nil
	})
}

// inspect runs a command that changes nothing, and reports whether it was one.
func (s *lifeScript) inspect(command string, args []string) bool {
	n := func(i int) int { return s.number(args[i]) }
	switch command {
	case "reads":
		p := make([]byte, n(2)*4096)
		s.must(s.device(args[0], func(d device.Reader) error { return d.Read(s.ctx, p, int64(n(1))*4096) }))
		want := make([]byte, len(p))
		if args[3] != "zeros" {
			want = content(n(1), n(2), n(3))
		}
		if at := diff(p, want); at >= 0 {
			s.fatal("cluster %d differs: %q", n(1)+at/4096, p[at:at+8])
		}
	case "size":
		i, err := s.rig.host.Info(s.ctx, args[0])
		if s.must(err); i.Size != uint64(n(1))*4096 {
			s.fatal("it has %d clusters", i.Size/4096)
		}
	case "extents":
		var got []string
		s.must(s.device(args[0], func(d device.Reader) error {
			return d.Extents(s.ctx, 0, d.Size(), func(e device.Extent) bool {
				kind := "data"
				if e.Hole {
					kind = "hole"
				} else if e.Zero {
					kind = "zero"
				}
				got = append(got, fmt.Sprint(e.Length/4096), kind)
				return true
			})
		}))
		if !slices.Equal(got, args[1:]) {
			s.fatal("they are %s", strings.Join(got, " "))
		}
	case "vdisks":
		list, err := s.rig.host.List(s.ctx)
		s.must(err)
		var got []string
		for _, i := range list {
			got = append(got, i.Name)
		}
		if !slices.Equal(got, args) {
			s.fatal("there are %q", got)
		}
	case "snapshots":
		list, err := s.rig.host.SnapshotList(s.ctx, args[0])
		s.must(err)
		var got []string
		for _, i := range list {
			got = append(got, i.Name)
		}
		if !slices.Equal(got, args[1:]) {
			s.fatal("there are %q", got)
		}
	case "state":
		if i, err := s.rig.host.Info(s.ctx, args[0]); err != nil || i.State != args[1] {
			s.fatal("%s: %s, %v", i.State, i.Reason, err)
		}
	case "stored", "collected":
		s.count(args[0], args[1], n(2), command == "collected")
	case "namespaces":
		names, err := s.rig.back.ListNamespaces(s.ctx)
		if s.must(err); len(names) != n(0) {
			s.fatal("there are %q", names)
		}
	default:
		return false
	}
	return true
}

// count compares how many objects of a kind a vDisk has in the backend; with wait
// it asks for them to be collected until there are as many as that.
func (s *lifeScript) count(name, kind string, want int, wait bool) {
	s.t.Helper()
	v := volumeOf(s.t, s.rig, name)
	for {
		var got []string
		s.must(v.namespace().List(s.ctx, kind+"-", func(i backend.Info) bool { got = append(got, i.Name); return true }))
		if len(got) == want {
			return
		}
		if !wait || s.ctx.Err() != nil {
			s.fatal("there are %q", got)
		}
		s.must(s.rig.host.Sync(s.ctx, name, nil)) // the storer's turn
	}
}

// damage flips a bit of a cluster wherever it is kept, in the write buffer and in the
// backend.
func (s *lifeScript) damage(where string, addr, version int) {
	s.t.Helper()
	text, found := content(addr, 1, version), false
	dirs, err := s.fs.ReadDir("/data/" + where)
	s.must(err)
	for _, dir := range dirs {
		names, _ := s.fs.ReadDir(path.Join("/data", where, dir)) // or no directory
		for _, name := range names {
			file := path.Join("/data", where, dir, name)
			f, err := s.fs.OpenFile(file, disk.Write, 0)
			s.must(err)
			size, err := f.Size()
			s.must(err)
			b := make([]byte, size)
			_, err = f.ReadAt(b, 0)
			s.must(err)
			if at := bytes.Index(b, text); at >= 0 {
				_, err := f.WriteAt([]byte{b[at] ^ 1}, int64(at))
				s.must(errors.Join(err, f.Sync()))
				found = true
			}
			s.must(f.Close())
		}
	}
	if !found {
		s.fatal("it is nowhere in %s", where)
	}
}
