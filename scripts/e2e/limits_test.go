package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openvstorage/nbd/nbdclient"
	"openvstorage/scripts/server"
)

// TestFewDescriptors: with 256 open files allowed, 70 vDisks are written side by side,
// and more clients come and go than can be served at once. Management answers all the
// while and nothing halts. In the end everything is there, after kill -9 too.
func TestFewDescriptors(t *testing.T) {
	const vdisks, strangers = 70, 200
	s := upLimited(t, 256)
	name := func(i int) string { return fmt.Sprintf("v%d", i) }
	data := func(i int) []byte { return bytes.Repeat([]byte{byte(i + 1)}, 64<<10) }
	var idle []*nbdclient.Client
	for i := range vdisks {
		s.create(name(i), gib)
		func() {
			c := s.dial(name(i))
			defer c.Close()
			must(t, second(c.WriteAt(data(i), 4096*int64(i))))
			if i%2 == 0 {
				must(t, c.Flush())
			}
		}()
		if i == 0 { // from now on strangers hold on to what they get
			idle = s.crowd(name(0), strangers)
			if len(idle) == 0 || len(idle) == strangers {
				t.Errorf("%d of %d clients were served with 256 open files", len(idle), strangers)
			}
			for _, c := range idle[len(idle)/2:] {
				must(t, c.Close())
			}
			idle = idle[:len(idle)/2]
		}
		if i%10 == 0 {
			s.ovs("vdisk", "list")
		}
	}
	for _, c := range idle {
		must(t, second(c.ReadAt(make([]byte, 4096), 0)))
		must(t, c.Close())
	}
	s.holdsAll(vdisks, name, data)
	s.Kill()
	s.start()
	s.holdsAll(vdisks, name, data)
	if list := string(s.ovs("vdisk", "list")); strings.Contains(list, "halted") {
		t.Errorf("halted:\n%s", list)
	}
}

// TestTooFewDescriptors: what cannot serve anybody says so at once, and makes nothing.
func TestTooFewDescriptors(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	o := server.Ovs{Bin: limited(t, 128), Data: dir}
	if p, err := server.Start(o.Up()); err == nil {
		p.Kill()
		t.Error("it starts with 128 open files")
	} else if !strings.Contains(err.Error(), "128") || !strings.Contains(err.Error(), "LimitNOFILE") {
		t.Errorf("the refusal does not name limit and cure: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it has made the directory all the same")
	}
}

// limited is a program that is ovs with so many open files at most.
func limited(t *testing.T, files int) string {
	t.Helper()
	if *standIn != "" {
		t.Skip("needs ovs")
	}
	script := filepath.Join(t.TempDir(), "ovs")
	must(t, os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", files, bin), 0o755))
	return script
}

func upLimited(t *testing.T, files int) *system {
	t.Helper()
	s := &system{t: t, Ovs: server.Ovs{Bin: limited(t, files), Data: filepath.Join(t.TempDir(), "data")}}
	s.command = s.Up()
	s.run()
	return s
}

// patience is how long a client tries to get in.
const patience = 20 * time.Second

// dial opens an export. While others fill the server it tries again.
func (s *system) dial(export string) *nbdclient.Client {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for {
		c, err := nbdclient.Dial(ctx, "unix", s.Socket, nbdclient.Options{Export: export, InFlight: 1})
		if err == nil {
			return c
		}
		if ctx.Err() != nil {
			s.t.Fatalf("export %s: %v", export, err)
		}
	}
}

// crowd opens an export up to n times, until it is refused.
func (s *system) crowd(export string, n int) (list []*nbdclient.Client) {
	for range n {
		c, err := nbdclient.Dial(s.t.Context(), "unix", s.Socket, nbdclient.Options{Export: export, InFlight: 1})
		if err != nil {
			break
		}
		list = append(list, c)
	}
	return list
}

func (s *system) holdsAll(n int, name func(int) string, data func(int) []byte) {
	s.t.Helper()
	for i := range n {
		c := s.dial(name(i))
		p := make([]byte, len(data(i)))
		must(s.t, second(c.ReadAt(p, 4096*int64(i))))
		if !bytes.Equal(p, data(i)) {
			s.t.Errorf("%s does not hold what was written", name(i))
		}
		must(s.t, c.Close())
	}
}

func second[T any](_ T, err error) error { return err }
