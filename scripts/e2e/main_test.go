package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"openvstorage/nbd/nbdtest"
	"openvstorage/scripts/server"
)

var standIn = flag.String("standin", "", "test the tests: run those that need no management against nbdkit or qemu-nbd")

// bin is the built ovs.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if *standIn != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "ovs-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if bin, err = server.Build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Sizes in bytes.
const (
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

// stopMax bounds a clean stop.
const stopMax = 30 * time.Second

// need skips the test if a program is not installed.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, which is not installed", tool)
		}
	}
}

// long skips the test under -short.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long")
	}
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// system is a data directory and the server that runs on it: ovs, except
// where a stand-in keeps data too.
type system struct {
	t *testing.T
	server.Ovs
	*server.Process
	command server.Command
	export  string // of the disk that killable made
}

// up starts ovs on a new directory. At the end of the test it is stopped,
// and must stop well.
func up(t *testing.T, flags ...string) *system {
	t.Helper()
	return upAt(t, filepath.Join(t.TempDir(), "data"), flags...)
}

func upAt(t *testing.T, dir string, flags ...string) *system {
	t.Helper()
	if *standIn != "" {
		t.Skipf("needs the management of ovs, which %s has not", *standIn)
	}
	s := &system{t: t, Ovs: server.Ovs{Bin: bin, Data: dir, Flags: flags}}
	s.command = s.Up()
	s.run()
	return s
}

// killable is a server with one disk that outlives it: on ovs, or on nbdkit
// with a file, whose writes are in the kernel when they are acknowledged.
func killable(t *testing.T, size int64, flags ...string) *system {
	t.Helper()
	if *standIn == "" {
		s := up(t, flags...)
		s.create("disk", size)
		s.export = "disk"
		return s
	}
	need(t, "nbdkit")
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	must(t, os.WriteFile(raw, nil, 0o644))
	must(t, os.Truncate(raw, size))
	s := &system{t: t, command: server.NBDKit(dir, "disk", "file", raw)}
	s.run()
	return s
}

// run starts the server, and stops it at the end of the test.
func (s *system) run() {
	t := s.t
	t.Helper()
	s.start()
	t.Cleanup(func() {
		select {
		case <-s.Done():
		default:
			if err := s.Stop(stopMax); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			t.Logf("output of %s:\n%s", s.command.Name, s.Output())
		}
	})
}

// start starts the server on the directory, again.
func (s *system) start() {
	s.t.Helper()
	p, err := server.Start(s.command)
	must(s.t, err)
	s.Process = p
}

// ovs runs a command line and returns what it printed.
func (s *system) ovs(args ...string) string {
	s.t.Helper()
	out, err := s.Run(args...)
	must(s.t, err)
	return string(out)
}

// create makes a vDisk and returns its address.
func (s *system) create(name string, size int64) (uri string) {
	s.t.Helper()
	s.ovs("vdisk", "create", name, "--size", strconv.FormatInt(size, 10))
	return s.URI(name)
}

// info asks for a vDisk's state.
func (s *system) info(name string) server.Info {
	s.t.Helper()
	info, err := s.Info(name)
	must(s.t, err)
	return info
}

// newDisk serves an empty disk of its own, by ovs or by the stand-in, and
// returns its address and the name of its export.
func newDisk(t *testing.T, size int64) (uri string, socket string, export string) {
	t.Helper()
	if *standIn == "" {
		s := up(t)
		return s.create("disk", size), s.Socket, "disk"
	}
	need(t, *standIn)
	dir := t.TempDir()
	var c server.Command
	switch *standIn {
	case "nbdkit":
		c = server.NBDKit(dir, "disk", "memory", strconv.FormatInt(size, 10))
	case "qemu-nbd":
		raw := filepath.Join(dir, "disk.raw")
		must(t, os.WriteFile(raw, nil, 0o644))
		must(t, os.Truncate(raw, size))
		c = server.QEMUNBD(dir, "disk", raw, "writeback", "threads")
	default:
		t.Fatalf("no stand-in is called %q", *standIn)
	}
	p, err := server.Start(c)
	must(t, err)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", p.Name, p.Output())
		}
	})
	return c.URI(""), c.Socket, ""
}

// sh runs a program to its end and returns its standard output.
func sh(t *testing.T, args ...string) string {
	t.Helper()
	return shIn(t, "", args...)
}

// shIn is sh with a standard input.
func shIn(t *testing.T, in string, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(in)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		line := strings.Join(args, " ")
		t.Fatalf("%s: %v\n%s%s", line[:min(len(line), 300)], err, said.String(), out)
	}
	return string(out)
}

// eachClients runs a test with the clients of several releases of Debian.
func eachClients(t *testing.T, test func(t *testing.T)) {
	nbdtest.EachClients(t, func(t *testing.T, _ nbdtest.Clients) { test(t) })
}

// nbdsh runs a Python script with a libnbd handle h on uri. Another Python than
// the one that came with it has no nbd module, so that its directory goes first.
func nbdsh(t *testing.T, uri, script string) string {
	t.Helper()
	need(t, "nbdsh")
	path, err := exec.LookPath("nbdsh")
	must(t, err)
	t.Setenv("PATH", filepath.Dir(path)+":"+os.Getenv("PATH"))
	return sh(t, "nbdsh", "-c", "h.set_request_structured_replies(True)", "-c", `h.add_meta_context("base:allocation")`, "-u", uri, "-c", script)
}

// eventually polls until ok or the limit is over; what names it.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(limit); !ok(); <-again.C {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not: %s", limit, what)
		}
	}
}
