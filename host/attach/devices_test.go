package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"openvstorage/blockdev"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/disk/osdisk"
	"openvstorage/internal/format/unknown"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdtest"
)

// vdisks are those that there are.
type vdisks struct{ list []VDisk }

func (v vdisks) List(context.Context) ([]VDisk, error) { return v.list, nil }

func (v vdisks) Info(_ context.Context, name string) (VDisk, error) {
	for _, i := range v.list {
		if i.Name == name {
			return i, nil
		}
	}
	return VDisk{}, errors.New("no such vDisk")
}

var quiet = slog.New(slog.DiscardHandler)

// noLoop is what makes loop devices where there are none.
func noLoop(context.Context, ...string) (string, error) {
	return "", errors.New("no loop devices here")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func devicesIn(t *testing.T, dir string, list ...VDisk) *Devices {
	t.Helper()
	d := New(Config{VDisks: vdisks{list}, FS: osdisk.FS{}, Dir: dir, Loop: noLoop, Logger: quiet})
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Each call that reads or writes the record is answered once with each errno: the
// error says which file and which errno, and the record is the one before or the
// one after.
func TestAttachmentsErrnos(t *testing.T) {
	record := func(fs disk.FS, name string) error {
		d := New(Config{FS: fs, Dir: "/data", Logger: quiet})
		var err error
		if d.list, err = d.record.read(); err != nil {
			return err
		}
		d.list = []attachment{{ID: uuid.UUID{1}, Name: name, Kind: KindLoop, Device: "/dev/loop0"}}
		return d.record.write(d.list)
	}
	base := crashdisk.New()
	if err := errors.Join(base.MkdirAll("/data", 0o700), base.SyncDir("/"), record(base, "before")); err != nil {
		t.Fatal(err)
	}
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EACCES, syscall.ENOSPC, syscall.EINTR} {
		for turn := 0; ; turn++ {
			mem := base.Kill()
			fs := faultdisk.New(mem)
			rule := fs.Inject(faultdisk.Rule{Skip: turn, Times: 1, Err: errno})
			err := record(fs, "after")
			if rule.Fired() == 0 {
				break
			}
			if err != nil && (!errors.Is(err, errno) || !strings.Contains(err.Error(), attachmentsFile)) {
				t.Errorf("%v of call %d: %v", errno, turn, err)
			}
			d := New(Config{FS: mem.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll), Dir: "/data", Logger: quiet})
			var e error
			if d.list, e = d.record.read(); e != nil || len(d.list) != 1 || d.list[0].Name != "before" && err != nil || d.list[0].Name != "after" && err == nil {
				t.Errorf("%v of call %d, told as %v: afterwards %v, %v", errno, turn, err, d.list, e)
			}
		}
	}
}

// A record that has grown is refused by name, and not read to its end.
func TestAttachmentsTooLong(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, attachmentsFile)
	if err := errors.Join(os.WriteFile(name, []byte("{}"), 0o600), os.Truncate(name, 6<<30)); err != nil {
		t.Fatal(err)
	}
	took, err := memoryOf(func() error { _, err := devicesIn(t, dir).record.read(); return err })
	if err == nil || !strings.Contains(err.Error(), name+": longer than") {
		t.Error(err)
	}
	if took > 16<<20 {
		t.Errorf("it took %d bytes of memory to say so", took)
	}
}

// memoryOf is how much memory a call allocates, in bytes.
func memoryOf(call func() error) (uint64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := call()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

// A record of version 1 opens: all of it are loop devices. It is written as one
// of version 2, which opens too. A newer one is refused by its number.
func TestAttachmentsRecord(t *testing.T) {
	id := uuid.MustParse("4d2f0f4e-98a5-4a10-9f5a-0f60f1d36c11")
	web := VDisk{ID: id, Name: "web", Size: 1 << 30}
	dir := t.TempDir()
	file := filepath.Join(dir, attachmentsFile)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"version": 1, "attachments": [
		{"id": "4d2f0f4e-98a5-4a10-9f5a-0f60f1d36c11", "name": "old", "device": "/dev/loop999", "readOnly": true},
		{"id": "00000000-0000-4000-8000-000000000001", "name": "deleted", "device": "/dev/loop998"}]}`)
	for round := range 2 {
		d := devicesIn(t, dir, web)
		if err := d.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		list, err := d.Attached(t.Context())
		if err != nil || len(list) != 1 || list[0].VDisk != "web" || list[0].Kind != KindLoop || !list[0].ReadOnly || list[0].BlockSize != 512 {
			t.Errorf("round %d: %+v, %v", round, list, err)
		}
		if list[0].Device != "" || !strings.Contains(list[0].Reason, "web") {
			t.Errorf("round %d: attached without a mount: %+v", round, list[0])
		}
		text, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(text, []byte(`"version": 2`)) {
			t.Errorf("round %d: %s, %v", round, text, err)
		}
	}
	for text, says := range map[string]string{
		`{"version": 0}`:                       "version 0",
		`{`:                                    "remove it",
		`{"version": 2, "attachments": []} {}`: "remove it",
		`{"version": 2, "attachments": [{"name": "web", "kind": "nbd"}]}`:                     "0 connections",
		`{"version": 2, "attachments": [{"name": "web", "kind": "loop", "blockSize": 8192}]}`: "block size 8192",
	} {
		write(text)
		if err := devicesIn(t, dir, web).Open(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What a later release may put into the file, one thing at a time. The file stays as
// it is.
func TestAttachmentsUnknown(t *testing.T) {
	dir := t.TempDir()
	of := func(says, text string) unknown.Case {
		return unknown.Case{Says: says, Read: func() error {
			file := filepath.Join(dir, attachmentsFile)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			err := devicesIn(t, dir).Open(t.Context())
			if now, rerr := os.ReadFile(file); rerr != nil || string(now) != text {
				t.Errorf("%s was changed: %s, %v", text, now, rerr)
			}
			if err != nil && (!strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "remove it")) {
				t.Errorf("%s: %v", text, err)
			}
			return err
		}}
	}
	unknown.Walk(t, "Attached block devices", map[string]unknown.Case{
		"a later version":             of("version 3, this release reads up to 2", `{"version": 3, "all": []}`),
		"a field":                     of(`field "bits"`, `{"version": 2, "bits": 1, "attachments": []}`),
		"a field of an attachment":    of(`field "cache"`, `{"version": 2, "attachments": [{"name": "web", "kind": "loop", "cache": true}]}`),
		"a kind of device":            of(`kind "tape"`, `{"version": 2, "attachments": [{"name": "web", "kind": "tape"}]}`),
		"a later field, in version 1": of("fields of version 2", `{"version": 1, "attachments": [{"name": "web", "kind": "nbd"}]}`),
	})
}

func TestAttachOptions(t *testing.T) {
	a, err := asked(Options{Kind: KindNBD})
	if err != nil || a.Connections != 4 || a.Timeout != 30 || a.DeadTimeout != 300 || a.BlockSize != 512 {
		t.Fatalf("%+v, %v", a, err)
	}
	for _, opt := range []Options{
		{}, {Kind: KindAuto}, {Kind: KindNBD}, {Connections: 4}, {Timeout: 30 * time.Second}, {DeadTimeout: 5 * time.Minute}, {BlockSize: 512},
	} {
		if !a.like(opt) {
			t.Errorf("%+v is not like %+v", a, opt)
		}
	}
	for _, opt := range []Options{
		{ReadOnly: true}, {Kind: KindLoop}, {Connections: 3}, {Timeout: time.Second}, {DeadTimeout: time.Second}, {BlockSize: 4096},
	} {
		if a.like(opt) {
			t.Errorf("%+v is like %+v", a, opt)
		}
	}
	for _, opt := range []Options{
		{Kind: "tape"}, {Connections: -1}, {Connections: 17}, {Timeout: 1500 * time.Millisecond}, {Timeout: -time.Second},
		{DeadTimeout: time.Millisecond}, {BlockSize: 256}, {BlockSize: 1000}, {BlockSize: 8192}, {Kind: KindLoop, Connections: 4},
	} {
		if a, err := asked(opt); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %+v, %v", opt, a, err)
		}
	}
	if a, err := asked(Options{Kind: KindLoop}); err != nil || a.Connections != 0 {
		t.Errorf("%+v, %v", a, err)
	}
}

// Where the kernel has no NBD devices and there is no mount, the error names
// both ways out.
func TestNoKindOfDevice(t *testing.T) {
	if orders, err := blockdev.OpenNBD(t.Context()); err == nil {
		orders.Close()
		t.Skip("this kernel has NBD devices")
	}
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	d := devicesIn(t, t.TempDir(), VDisk{ID: uuid.New(), Name: "web", Size: 1 << 20})
	if err := d.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := d.Attach(t.Context(), "web", Options{})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "modprobe nbd") || !strings.Contains(err.Error(), "--mount DIR") {
		t.Error(err)
	}
	if list, err := d.Attached(t.Context()); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	if err := d.Detach(t.Context(), "web", true); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	a, want := attachment{Kind: KindAuto, Connections: 4}, attachment{Kind: KindLoop}
	d.loops.mount = "/mnt"
	if err := d.choose(t.Context(), &a); err != nil || !strings.Contains(a.why, "modprobe nbd") {
		t.Errorf("%+v, %v", a, err)
	}
	if a.why = ""; a != want {
		t.Errorf("%+v", a)
	}
}

// A connection as the kernel gets it, here with the kernel's part played by the
// test. The device is suspended while a flush is under way and a write is half
// sent: the flush is answered, nothing more is taken, and then it is over.
func TestSuspend(t *testing.T) {
	dev := nbdtest.NewMemory(1 << 20)
	arrived, open := make(chan struct{}), make(chan struct{})
	dev.Hook = func(ctx context.Context, op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.OpFlush {
			close(arrived)
			<-open
		}
		return nil
	}
	server, err := nbd.NewServer(nbdtest.Exports{"web": dev}, nbd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	k := newNBDDevices("/data", server, quiet)
	a := attachment{ID: uuid.New(), Name: "web", Connections: 3, Timeout: 30, DeadTimeout: 300, ReadOnly: true}
	c, ends, err := k.config(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(ends)
	want := nbd.HasFlags | nbd.ReadOnly | nbd.SendFlush | nbd.SendFUA | nbd.CanMultiConn | nbd.SendCache
	if c.Size != 1<<20 || len(c.Sockets) != 3 || c.ServerFlags != uint64(want) || c.Backend != fmt.Sprintf("ovs:%s:/data", a.ID) {
		t.Errorf("%+v", c)
	}
	request := nbd.AppendRequest(nil, nbd.Request{Type: nbd.CmdFlush, Cookie: 7})
	request = nbd.AppendRequest(request, nbd.Request{Type: nbd.CmdWrite, Cookie: 8, Length: 64 << 10})
	if _, err := ends[0].Write(append(request, make([]byte, 1000)...)); err != nil {
		t.Fatal(err)
	}
	<-arrived
	suspended := make(chan struct{})
	go func() {
		defer close(suspended)
		k.suspend(a)
	}()
	close(open)
	<-suspended
	for i, want := range [][]byte{nbd.AppendSimpleReply(nil, 7, nbd.OK), nil, nil} {
		if err := ends[i].SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(ends[i]); err != nil || !bytes.Equal(got, want) {
			t.Errorf("connection %d: got %x, %v; want %x", i, got, err, want)
		}
		if _, err := ends[i].Write(request); err == nil {
			t.Errorf("connection %d takes requests", i)
		}
	}
	if _, _, err := k.config(t.Context(), attachment{Name: "none", Connections: 1}); err == nil {
		t.Error("a vDisk that is not there was connected to")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := k.config(gone, a); err == nil {
		t.Error("connected for nobody")
	}
}

// A loop device is made by another process, which is told all that was asked for;
// its link leads to it. When the record cannot be written the device goes again.
func TestAttachLoop(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("block devices are made by root")
	}
	var ran []string
	fs := faultdisk.New(osdisk.FS{})
	d := New(Config{
		VDisks: vdisks{[]VDisk{{ID: uuid.New(), Name: "team/web", Size: 1 << 20}}}, FS: fs, Dir: t.TempDir(), Mount: "/nowhere", Logger: quiet,
		Loop: func(_ context.Context, args ...string) (string, error) {
			ran = append(ran, strings.Join(args, " "))
			return "/nowhere/loop7", nil
		},
	})
	must(t, d.Open(t.Context()))
	defer func() { must(t, d.Close()) }()
	asked := Options{Kind: KindLoop, ReadOnly: true, BlockSize: 4096}

	rule := fs.Inject(faultdisk.Rule{Ops: faultdisk.Open, Times: 1, Err: syscall.EIO})
	if _, err := d.Attach(t.Context(), "team/web", asked); !errors.Is(err, syscall.EIO) || rule.Fired() == 0 {
		t.Errorf("the record was not written: %v", err)
	}
	want := []string{"attach /nowhere/team/web.raw --device= --read-only=true --block-size=4096", "detach /nowhere/loop7"}
	if list, err := d.Attached(t.Context()); err != nil || len(list) != 0 || !slices.Equal(ran, want) {
		t.Errorf("it is not recorded: %+v, %v, ran %q", list, err, ran)
	}
	if _, err := os.Lstat(d.link("team/web")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its link: %v", err)
	}

	ran = nil
	at, err := d.Attach(t.Context(), "team/web", asked)
	if err != nil || at.Device != "/nowhere/loop7" || !at.ReadOnly || at.BlockSize != 4096 || at.Connections != 0 || !slices.Equal(ran, want[:1]) {
		t.Errorf("%+v, %v, ran %q", at, err, ran)
	}
	if to, err := os.Readlink(at.Link); err != nil || to != at.Device {
		t.Errorf("its link leads to %s, %v", to, err)
	}
	if err := d.Detach(t.Context(), "team/web", false); err != nil {
		t.Error(err)
	}
	if err := d.Detach(t.Context(), "team/web", false); !errors.Is(err, ErrNotFound) {
		t.Errorf("detached twice: %v", err)
	}
}
