package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"openvstorage/internal/control"
	"openvstorage/nbd/nbdclient"
)

// The tests of this file run three and more real processes on addresses of loopback, which
// are found by the number of this process and of the cluster in it: no other test of this machine has them.

// fleet is a cluster of processes.
type fleet struct {
	t     *testing.T
	is    int // its number in this process
	bin   string
	dir   string
	host  map[int]*process
	more  []string         // flags of each start
	zone  map[int]string   // of hosts that are not in one of their own
	flags map[int][]string // more of one host
}

// fleets counts the clusters of this process.
var fleets atomic.Int32

// newFleet makes a cluster without hosts. Its test runs beside others: hosts mostly wait for
// each other.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	t.Parallel()
	dir, err := os.MkdirTemp("", "ovs") // short, for the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, is: int(fleets.Add(1)), bin: filepath.Join(dir, "ovs"), dir: dir, host: map[int]*process{}}
	if err := os.Symlink(self, f.bin); err != nil { // TestMain makes it be ovs
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range f.host {
			_ = p.signal(syscall.SIGKILL)
		}
		if t.Failed() {
			for n, p := range f.host {
				t.Logf("host %d:\n%s", n, p.out.String())
			}
		}
		_ = os.RemoveAll(dir)
	})
	return f
}

func (f *fleet) data(n int) string { return filepath.Join(f.dir, fmt.Sprint(n)) }

// address is where a host is; up to 7 are.
func (f *fleet) address(n int) string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d:26400", 100+f.is&0x7f, pid>>5&0xff, pid&0x1f<<3|n)
}

// start starts a host, which joins if there is a token, and waits for "ready".
func (f *fleet) start(n int, token string, more ...string) error {
	return f.within(n, token, startTimeout, more...)
}

func (f *fleet) within(n int, token string, timeout time.Duration, more ...string) error {
	zone := f.zone[n]
	if zone == "" {
		zone = fmt.Sprintf("z%d", n)
	}
	args := slices.Concat([]string{"up", "--data", f.data(n), "--listen", f.address(n), "--zone", zone}, f.flags[n], f.more, more)
	if token != "" {
		args = append(args, "--join", token)
	}
	c := exec.Command(f.bin, args...)
	c.Dir = f.dir
	c.Env = append(os.Environ(), "OVS_DATA=")
	p, err := startUp(c, timeout)
	if err == nil {
		f.host[n] = p
	}
	return err
}

func (f *fleet) up(n int) {
	f.t.Helper()
	if err := f.start(n, ""); err != nil {
		f.t.Fatalf("host %d: %v", n, err)
	}
}

// join has a new host join by a token of host 1.
func (f *fleet) join(n int) {
	f.t.Helper()
	if err := f.start(n, strings.TrimSpace(f.ovs(1, "host", "token"))); err != nil {
		f.t.Fatalf("host %d: %v", n, err)
	}
}

func (f *fleet) kill(n int) {
	_ = f.host[n].signal(syscall.SIGKILL)
	delete(f.host, n)
}

// ovs runs a command on a host, and returns what it prints.
func (f *fleet) ovs(n int, args ...string) string {
	f.t.Helper()
	out, err := f.try(n, args...)
	if err != nil {
		f.t.Fatalf("host %d: ovs %v: %v", n, args, err)
	}
	return out
}

func (f *fleet) try(n int, args ...string) (string, error) {
	c := exec.Command(f.bin, append([]string{"--data", f.data(n)}, args...)...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	timer := time.AfterFunc(startTimeout, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

// await asks again and again until something holds. A test that passes waits for nothing
// else than that.
func (f *fleet) await(what string, holds func() bool) {
	f.t.Helper()
	end := time.After(startTimeout)
	for !holds() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-end:
			f.t.Fatalf("in vain: %s", what)
		}
	}
}

func (f *fleet) hosts(n int) (list []control.ClusterHost) {
	f.t.Helper()
	if err := json.Unmarshal([]byte(f.ovs(n, "host", "list", "--json")), &list); err != nil {
		f.t.Fatal(err)
	}
	return list
}

// three waits until so many hosts hold a member of each group, and these are three voters.
func (f *fleet) three() {
	f.t.Helper()
	f.await("three voters of each group", func() bool {
		full := 0
		for _, h := range f.hosts(1) {
			switch {
			case h.State == "joined" && len(h.Members) == 3:
				full++
			case len(h.Members) > 0:
				return false
			}
		}
		return full == 3 && strings.Contains(f.ovs(1, "status"), "3 voters each, one host may be lost")
	})
}

// writer writes to a vDisk on host 1 and reads it back until it is stopped.
type writer struct {
	rounds atomic.Int64
	stop   chan struct{}
	done   chan error
}

func (f *fleet) write(vdisk string) *writer {
	f.t.Helper()
	c, err := nbdclient.Dial(f.t.Context(), "unix", filepath.Join(f.data(1), "nbd.sock"), nbdclient.Options{Export: vdisk})
	if err != nil {
		f.t.Fatal(err)
	}
	w := &writer{stop: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		defer c.Close()
		w.done <- w.run(c)
	}()
	return w
}

func (w *writer) run(c *nbdclient.Client) error {
	p, back := make([]byte, 256<<10), make([]byte, 256<<10)
	for n := int64(0); ; n++ {
		select {
		case <-w.stop:
			return c.Flush()
		default:
		}
		for i := range p {
			p[i] = byte(n + 1)
		}
		at := n % 64 * int64(len(p))
		if _, err := c.WriteAt(p, at); err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		if _, err := c.ReadAt(back, at); err != nil || !bytes.Equal(p, back) {
			return fmt.Errorf("round %d: what was read is not what was written: %w", n, err)
		}
		w.rounds.Add(1)
	}
}

func (w *writer) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	if err := <-w.done; err != nil {
		t.Error(err)
	}
}

// Hosts that join get members of all groups, and the cluster goes on without any one of them.
func TestThreeHosts(t *testing.T) {
	f := newFleet(t)
	f.up(1)
	f.await("one host has listed its groups", func() bool { return strings.Contains(f.ovs(1, "status"), "no host may be lost") })
	f.ovs(1, "vdisk", "create", "v", "--size", "64MiB")
	f.join(2)
	f.join(3)
	f.three()

	w := f.write("v")
	for _, n := range []int{3, 2} {
		f.kill(n)
		before := w.rounds.Load()
		f.ovs(1, "vdisk", "create", fmt.Sprintf("without-%d", n), "--size", "1MiB")
		f.await("writes go on", func() bool { return w.rounds.Load() > before+3 })
		f.up(n)
		f.await("the host is connected again", func() bool {
			for _, h := range f.hosts(1) {
				if !*h.Connected {
					return false
				}
			}
			return true
		})
	}
	w.end(t)
	f.kill(1) // the others lead from now on
	f.up(1)
	f.ovs(1, "vdisk", "create", "led-elsewhere", "--size", "1MiB")
	w = f.write("v")
	f.await("writes go on", func() bool { return w.rounds.Load() > 3 })
	w.end(t)

	// All at once, and up again in the other order.
	for n := range 3 {
		f.kill(n + 1)
	}
	f.up(3)
	f.up(2)
	f.up(1)
	for _, name := range []string{"v", "without-3", "without-2", "led-elsewhere"} {
		f.ovs(1, "vdisk", "info", name)
	}
	f.three()

	// Without the others, and without an address for them, the first host opens nothing.
	f.kill(1)
	if out, err := f.try(1, "up"); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("host 1 by itself: %v, %s", err, out)
	}
	f.up(1)
}

// A host that has lost a member is refused by name, and replaced by another host.
func TestReplaceHost(t *testing.T) {
	f := newFleet(t)
	f.up(1)
	f.join(2)
	f.join(3)
	f.three()
	f.kill(3)
	files, err := filepath.Glob(filepath.Join(f.data(3), "arakoon", "abm.?")) // the steward chose the number
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.RemoveAll(files[0]); err != nil {
		t.Fatal(err)
	}
	f.awaitWiped(3)
	lost := f.id(3)
	if _, err := f.try(1, "host", "remove", lost); err == nil || !strings.Contains(err.Error(), "--lost") {
		t.Errorf("a host that is away is removed as if it were there: %v", err)
	}
	f.ovs(1, "host", "remove", lost, "--lost")
	f.join(4)
	f.three()
	for _, h := range f.hosts(1) {
		if h.ID.String() == lost && len(h.Members) > 0 {
			t.Errorf("the host that was given up is listed with %v", h.Members)
		}
	}

	// One that is there gives its members away before it goes.
	left := f.id(2)
	f.ovs(1, "host", "remove", left)
	f.await("two hosts are left", func() bool {
		return strings.Contains(f.ovs(1, "status"), "two hosts, nothing fails over by itself")
	})
	f.ovs(1, "vdisk", "create", "v", "--size", "1MiB")
}

// awaitWiped starts a host that has lost a member, and waits until it has refused that.
func (f *fleet) awaitWiped(n int) {
	f.t.Helper()
	err := f.start(n, "")
	text := ""
	if err != nil {
		text = err.Error()
	} else {
		p := f.host[n]
		f.await("the host ends", func() bool {
			select {
			case <-p.exited:
				return true
			default:
				return false
			}
		})
		text = p.out.String()
		delete(f.host, n)
	}
	if !strings.Contains(text, "missing: abm") || !strings.Contains(text, "ovs host remove") {
		f.t.Errorf("a member that is missing is not refused by name: %s", text)
	}
}

// id is the UUID of a host, by its zone.
func (f *fleet) id(n int) string {
	f.t.Helper()
	for _, h := range f.hosts(1) {
		if h.Zone == fmt.Sprintf("z%d", n) {
			return h.ID.String()
		}
	}
	f.t.Fatalf("host %d is not listed", n)
	return ""
}
