// Command stamp writes stamped blocks to an NBD export, and later proves what is there
// (package openvstorage/scripts/stamp).
//
//	stamp write  -socket DIR/nbd.sock -export disk -log FILE -time 10s   until it or the server is killed
//	stamp verify -socket DIR/nbd.sock -export disk -log FILE             after the restart
//	stamp verify -powercut ...                                           only what was flushed must be there
//
// Exit codes: 0 done, 1 failed or the device is wrong, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"openvstorage/scripts/stamp"
)

type options struct {
	socket, export, log string
	conns, depth        int
	seed                uint64
	time                time.Duration
	powerCut, full      bool
}

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	verb := os.Args[1]
	var o options
	f := flag.NewFlagSet(verb, flag.ExitOnError) // exits with 2
	f.StringVar(&o.socket, "socket", "", "the server's unix socket")
	f.StringVar(&o.export, "export", "", "name of the export")
	f.StringVar(&o.log, "log", "", "file of what was issued and acknowledged; made if absent, continued if not")
	f.IntVar(&o.conns, "conns", 4, "connections")
	f.IntVar(&o.depth, "depth", 8, "requests in flight on each connection")
	f.Uint64Var(&o.seed, "seed", rand.Uint64(), "of offsets and sizes")
	f.DurationVar(&o.time, "time", 0, "stop writing after this long; 0: never")
	f.BoolVar(&o.powerCut, "powercut", false, "verify what a power cut leaves")
	f.BoolVar(&o.full, "full", true, "verify the whole device, not only what was written to")
	f.Parse(os.Args[2:])
	if o.socket == "" || o.log == "" || o.conns < 1 || o.depth < 1 {
		usage()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch verb {
	case "write":
		err = write(ctx, o)
	case "verify":
		err = verify(ctx, o)
	default:
		usage()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stamp:", err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: stamp write|verify -socket SOCKET -export NAME -log FILE [flags]; stamp write -h lists them")
	os.Exit(2)
}

func write(ctx context.Context, o options) error {
	clients, err := stamp.Dial(ctx, o.socket, o.export, o.conns)
	if err != nil {
		return err
	}
	defer stamp.Hangup(clients)
	l, err := stamp.OpenLog(o.log)
	if errors.Is(err, fs.ErrNotExist) {
		l, err = stamp.CreateLog(o.log, rand.Uint64(), clients[0].Size())
	}
	if err != nil {
		return err
	}
	defer l.Close()
	if o.time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.time)
		defer cancel()
	}
	fmt.Printf("seed %d\n", o.seed)
	stats, err := stamp.Run(ctx, stamp.Options{Log: l, Conns: stamp.Conns(clients), Depth: o.depth, Seed: o.seed})
	fmt.Printf("%d writes, %d acknowledged, %d flushes\n", stats.Writes, stats.Acked, stats.Flushes)
	return err
}

func verify(ctx context.Context, o options) error {
	clients, err := stamp.Dial(ctx, o.socket, o.export, o.conns)
	if err != nil {
		return err
	}
	defer stamp.Hangup(clients)
	if err := clients[0].Flush(); err != nil { // what is seen now must stay
		return err
	}
	l, err := stamp.OpenLog(o.log)
	if err != nil {
		return err
	}
	defer l.Close()
	h := stamp.NewHistory()
	if err := h.Catch(o.log); err != nil {
		return err
	}
	r, err := stamp.Verify(ctx, h, l, stamp.VerifyOptions{PowerCut: o.powerCut, Full: o.full, Conns: stamp.Readings(clients)})
	if err != nil {
		return err
	}
	fmt.Printf("%d writes issued, %d acknowledged, %d present, %d bytes read, %d faults\n", r.Issued, r.Acked, r.Present, r.Bytes, r.Faults)
	return r.Err()
}
