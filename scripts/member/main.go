// Command member is one member of one Arakoon group as a process: transport and keys on one
// TCP listener, without TLS. Tests and benchmarks start it; it is not shipped.
//
//	member -dir D -listen 127.0.0.1:7001 -control D.ctl -cluster UUID -member 2 -peers 1=127.0.0.1:7000,2=... [-joining] [-life N]
//
// It prints a line "ready" once it serves. What a person or a steward would decide comes by
// HTTP on the unix socket of -control: see control.go. If the node fails the process prints
// why and ends with status 3, as then its disk has to be looked at before a new start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/transport"
	"openvstorage/internal/disk/osdisk"
	"openvstorage/internal/wire"
	"openvstorage/scripts/group"

	"github.com/google/uuid"
)

// failed is the exit status of a member whose node has failed.
const failed = 3

var errFailed = errors.New("the node failed")

type config struct {
	dir, listen, control, name string
	cluster                    uuid.UUID
	member, life, generation   uint64
	joining                    bool
	log                        int64 // bytes kept behind
	segment, hold              int64
	rate, busyRate             int64 // bytes a second of snapshots
	tick                       time.Duration
	verbose                    bool
	peers                      *book
}

func main() {
	switch err := run(); {
	case errors.Is(err, errFailed):
		fmt.Fprintln(os.Stderr, "member:", err)
		os.Exit(failed)
	case err != nil:
		fmt.Fprintln(os.Stderr, "member:", err)
		os.Exit(1)
	}
}

func flags() (config, error) {
	c := config{peers: newBook()}
	flag.StringVar(&c.dir, "dir", "", "of log and state")
	flag.StringVar(&c.listen, "listen", "", "address, host:port")
	flag.StringVar(&c.control, "control", "", "unix socket for the driver")
	flag.StringVar(&c.name, "group", group.Name, "of the group")
	flag.Func("cluster", "UUID", func(s string) (err error) { c.cluster, err = uuid.Parse(s); return err })
	flag.Uint64Var(&c.member, "member", 0, "number of this member")
	flag.Uint64Var(&c.life, "life", 0, "of the group")
	flag.Uint64Var(&c.generation, "generation", 0, "of the host, which files of an older one have told")
	flag.BoolVar(&c.joining, "joining", false, "the group has taken it up as a learner, or is about to")
	flag.Int64Var(&c.log, "compact", 0, "bytes of log beyond which it is cut off; 0: the default")
	flag.Int64Var(&c.segment, "segment", 0, "bytes of a file of the log; 0: the default")
	flag.Int64Var(&c.hold, "hold", 0, "more bytes of log that are kept for members that catch up; 0: the default")
	flag.Int64Var(&c.rate, "snapshot-rate", 0, "bytes a second that are read of snapshots; 0: the default")
	flag.Int64Var(&c.busyRate, "snapshot-busy-rate", 0, "the same while there are writes and consistent reads; 0: the default")
	flag.DurationVar(&c.tick, "tick", 0, "between heartbeats; 0: the default")
	flag.BoolVar(&c.verbose, "verbose", false, "log what happens to standard error")
	flag.Func("peers", "NUMBER=HOST:PORT, separated by commas, of all members", c.peers.set)
	flag.Parse()
	if c.dir == "" || c.listen == "" || c.control == "" || c.cluster == uuid.Nil || c.member == 0 {
		return c, errors.New("-dir, -listen, -control, -cluster and -member must be given")
	}
	return c, nil
}

func run() error {
	c, err := flags()
	if err != nil {
		return err
	}
	level := slog.LevelError
	if c.verbose {
		level = slog.LevelInfo
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	fs := osdisk.Counted(nil)
	self := func() wire.Identity { return wire.Identity{Cluster: c.cluster, Host: group.Host(c.cluster, c.member)} }
	t, err := transport.New(transport.Options{
		Member: c.member, Cluster: c.cluster, Group: c.name, Life: c.life, FS: fs, Logger: logger,
		Peers: func(member uint64) (transport.Address, bool) {
			a, ok := c.peers.get(member)
			return transport.Address{Network: "tcp", Address: a, Host: group.Host(c.cluster, member)}, ok
		},
		Dial: func(context.Context, transport.Address) (wire.DialOptions, error) {
			return wire.DialOptions{Identity: self()}, nil
		},
		Belongs: func(member uint64, p *wire.Peer) bool { return p.Host == group.Host(c.cluster, member) },
	})
	if err != nil {
		return err
	}
	defer t.Close()
	// A directory with a log was used before. It is a failure if the log is gone from one
	// that has more than that, and never a new beginning (rule P8): Open sees to it.
	_, err = os.Stat(filepath.Join(c.dir, "log"))
	existing := err == nil
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	n, err := arakoon.Open(arakoon.Options{
		FS: fs, Dir: c.dir, Cluster: c.cluster, Member: c.member, Life: c.life, Generation: c.generation, Functions: []arakoon.Function{group.Append},
		Transport: t, Fetcher: t, Joining: c.joining, Existing: existing, CompactBytes: c.log, SegmentBytes: c.segment, HoldBytes: c.hold, SnapshotBytesPerSecond: c.rate, SnapshotBusyBytesPerSecond: c.busyRate,
		Tick: c.tick, Logger: logger,
	})
	if err != nil {
		return fmt.Errorf("%w: open: %w", errFailed, err)
	}
	defer n.Close()
	return serve(c, n, t, self)
}

// serve answers until a signal comes, or the node fails.
func serve(c config, n *arakoon.Node, t *transport.Transport, self func() wire.Identity) error {
	groups := transport.NewGroups()
	if err := groups.Add(t, n, transport.SnapshotsOf(n)); err != nil {
		return err
	}
	defer groups.Remove(t)
	keys, err := kv.NewServer(kv.Options{Groups: func(name string) (kv.Group, bool) {
		return kv.Group{Node: n, Life: c.life}, name == c.name
	}})
	if err != nil {
		return err
	}
	server, err := wire.NewServer(wire.ServerOptions{
		Services: map[string]*wire.Service{transport.ServiceName: groups.Service(), kv.Service: keys.Service()},
		Identity: self, PerPeer: 1024,
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.listen)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		_ = server.Close(ctx)
	}()
	stop, err := control(c, n, t)
	if err != nil {
		return err
	}
	defer stop()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	fmt.Println("ready")
	select {
	case <-signals:
		return nil
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-n.Failed():
		return fmt.Errorf("%w: %w", errFailed, n.Err())
	}
}
