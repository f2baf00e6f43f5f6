package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"openvstorage/internal/control"
	"openvstorage/scripts/server"
)

// upgrade is one run: two releases, and up to four hosts.
type upgrade struct {
	ctx          context.Context
	dir          string
	older, newer release
	say          func(format string, args ...any)
	hosts        [5]*host // by number, from 1
}

// host is a data directory, and the process on it.
type host struct {
	n int
	server.Ovs
	release release
	process *server.Process // nil: it does not run
}

// Times that a test waits for at most.
const (
	startMax = time.Minute
	stopMax  = 30 * time.Second
	askEvery = 50 * time.Millisecond
)

// data is the directory of a host.
func (u *upgrade) data(n int) string { return filepath.Join(u.dir, fmt.Sprint("host", n)) }

// command is how a host is started with a release. Without listen it is a machine of its own.
func (u *upgrade) command(n int, r release, listen bool, flags ...string) (*host, server.Command) {
	h := u.hosts[n]
	if h == nil {
		h = &host{n: n, Ovs: server.Ovs{Data: u.data(n)}}
		u.hosts[n] = h
	}
	h.release, h.Bin, h.Flags = r, r.bin, nil
	if listen {
		pid := os.Getpid() // other runs on this machine have other addresses
		h.Flags = []string{"--listen", fmt.Sprintf("127.%d.%d.%d:26400", 132+pid>>16&31, pid>>8&0xff, pid&0x1f<<3|n), "--zone", fmt.Sprint("z", n)}
	}
	h.Flags = append(h.Flags, flags...)
	c := h.Up()
	c.Name = fmt.Sprintf("host %d (%v)", n, r)
	return h, c
}

// up starts a host and waits until it is ready.
func (u *upgrade) up(n int, r release, listen bool, flags ...string) error {
	h, c := u.command(n, r, listen, flags...)
	p, err := server.Start(c)
	if err == nil {
		h.process = p
	}
	return err
}

// join has a host join by a token of host 1.
func (u *upgrade) join(n int, r release) error {
	token, err := u.ovs(1, "host", "token")
	if err != nil {
		return err
	}
	return u.up(n, r, true, "--join", strings.TrimSpace(token))
}

func (u *upgrade) stop(n int) error {
	p := u.hosts[n].process
	u.hosts[n].process = nil
	return p.Stop(stopMax)
}

// close ends what runs.
func (u *upgrade) close() (err error) {
	for _, h := range u.hosts[1:] {
		if h != nil && h.process != nil {
			err = errors.Join(err, u.stop(h.n))
		}
	}
	return err
}

// ovs runs a command line of the release that the host runs.
func (u *upgrade) ovs(n int, args ...string) (string, error) {
	out, err := u.hosts[n].Run(args...)
	if err != nil {
		err = fmt.Errorf("host %d (%v): %w", n, u.hosts[n].release, err)
	}
	return string(out), err
}

// await asks again and again until something holds.
func (u *upgrade) await(what string, holds func() (bool, error)) error {
	end := time.After(startMax)
	for {
		ok, err := holds()
		if ok {
			return nil
		}
		select {
		case <-time.After(askEvery):
		case <-end:
			return fmt.Errorf("in vain, for %v: %s: %w", startMax, what, err)
		case <-u.ctx.Done():
			return u.ctx.Err()
		}
	}
}

// three waits until each group has three voters.
func (u *upgrade) three() error {
	return u.await("three voters of each group", func() (bool, error) {
		out, err := u.ovs(1, "status")
		return strings.Contains(out, "3 voters each, one host may be lost"), err
	})
}

// refused starts a host with a release that must not serve there, and returns the line by which
// it says so. A host that is ready before it opens its members may go on without them.
func (u *upgrade) refused(n int, r release, words string, flags ...string) (string, error) {
	_, c := u.command(n, r, true, flags...)
	return u.refuses(c, words)
}

func (u *upgrade) refuses(c server.Command, words string) (line string, err error) {
	p, err := server.Launch(c)
	if err != nil {
		return "", err
	}
	defer p.Kill()
	err = u.await(fmt.Sprintf("%s says %q", c.Name, words), func() (bool, error) {
		out := p.Output()
		for one := range strings.Lines(out) {
			if strings.Contains(one, words) {
				line = strings.TrimSpace(one)
				return true, nil
			}
		}
		return false, fmt.Errorf("it says %s", out)
	})
	return line, err
}

// write makes a vDisk of random bytes, and returns them.
func (u *upgrade) write(n int, vdisk string) ([]byte, error) {
	data := make([]byte, 4<<20)
	if _, err := rand.Read(data); err != nil {
		return nil, err
	}
	name := filepath.Join(u.dir, vdisk+".raw")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		return nil, err
	}
	_, err := u.ovs(n, "vdisk", "import", name, vdisk)
	return data, err
}

// holds checks what a vDisk holds.
func (u *upgrade) holds(n int, vdisk string, want []byte) error {
	name := filepath.Join(u.dir, vdisk+".out")
	defer os.Remove(name)
	if _, err := u.ovs(n, "vdisk", "export", vdisk, name); err != nil {
		return err
	}
	got, err := os.ReadFile(name)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("vDisk %s holds other bytes than were written", vdisk)
	}
	return err
}

// levels are those that host 1 sees.
func (u *upgrade) levels() (l control.ArakoonLevels, err error) {
	out, err := u.ovs(1, "arakoon", "level", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &l)
	}
	return l, err
}
