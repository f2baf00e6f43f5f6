// Hostile runs a guest beside clients that mean harm, attack by attack, and prints what
// is left to the guest: its requests a second and its 99th percentile, compared with
// the same guest alone, just before or after. It fails if, in the median of the rounds,
// the guest has less than half of the requests or more than three times the percentile,
// or if a request took over ten seconds.
//
// All of them share this machine, so the table has the CPUs that each of them used. No
// server can give back what the attacker uses itself. The last column is the rest of
// the machine: if it is high, the row says little.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"openvstorage/nbd/hostile"
	"openvstorage/nbd/nbdclient"
	"openvstorage/scripts/fio"
	"openvstorage/scripts/server"
)

// The bars.
const (
	leastIOPS = 0.5
	mostP99   = 3
	mostStall = 10 * time.Second

	// spare is how many places of the unix socket an attacker leaves to the guest, if
	// its connections are like the guest's own. Only the owner can open the socket, and
	// a server that is full of its owner's clients is full.
	spare = 4
)

type options struct {
	time     time.Duration
	rounds   int
	networks []string
	only     *regexp.Regexp
	dir      string
	load     string
}

func main() {
	var o options
	flag.DurationVar(&o.time, "time", 10*time.Second, "`time` of a run; each round takes two")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each attack; the median of them counts")
	networks := flag.String("networks", "tcp,unix", "how the strangers come: tcp, unix, or both")
	only := flag.String("attacks", "", "only the attacks whose name matches this regular `expression`")
	flag.StringVar(&o.dir, "dir", "", "work in a new directory below this one (default: the temporary directory)")
	flag.StringVar(&o.load, "load", "randrw", "the guest's load, as fio's --rw has it")
	flag.Parse()
	o.networks = strings.Split(*networks, ",")
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	dir, err := os.MkdirTemp(o.dir, "hostile")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin, err := server.Build(dir)
	if err != nil {
		return err
	}
	const address, metrics = "127.0.0.1:10899", "127.0.0.1:10898"
	ovs := server.Ovs{Bin: bin, Data: filepath.Join(dir, "data"), Flags: []string{"--nbd-tcp", address, "--metrics", metrics, "--log-level", "error"}}
	proc, err := server.Start(ovs.Up())
	if err != nil {
		return err
	}
	defer proc.Stop(time.Minute)
	for name, size := range map[string]string{"guest": "256MiB", "template": "64MiB"} {
		if _, err := ovs.Run("vdisk", "create", name, "--size", size); err != nil {
			return err
		}
	}
	if err := chequer(proc.Socket); err != nil {
		return err
	}
	// What a clone has from its parent is read from the backend, the dearest way,
	// and not now from there and now from the write buffer.
	if _, err := ovs.Run("vdisk", "clone", "template", "strangers"); err != nil {
		return err
	}
	g := guest{uri: (&url.URL{Scheme: "nbd+unix", Path: "/guest", RawQuery: "socket=" + proc.Socket}).String(), options: o}
	if _, err := g.run(2 * time.Second); err != nil { // its write buffer is warm
		return err
	}
	table := newTable(os.Stdout)
	var failed []string
	for _, a := range hostile.Attacks() {
		for _, network := range o.networks {
			target := hostile.Target{Network: network, Address: proc.Socket, Export: "strangers"}
			switch {
			case !o.only.MatchString(a.Name):
				continue
			case a.Metrics && network != "tcp":
				table.skipped(a.Name, network, "the metrics port is one of TCP")
				continue
			case a.TLS: // nbd/hostile has a test of its own for these
				continue
			case a.Metrics:
				target.Address = metrics
			case network == "tcp":
				target.Address = address
			}
			var rounds []outcome
			for i := range max(1, o.rounds) {
				r, err := g.pair(a, target, proc, i%2 == 1)
				if err != nil {
					return fmt.Errorf("%s by %s: %w", a.Name, network, err)
				}
				rounds = append(rounds, r)
			}
			if row := medians(rounds); !table.row(a.Name, network, row) {
				failed = append(failed, a.Name+" by "+network)
			}
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("the guest has lost too much beside %s", strings.Join(failed, ", "))
	}
	return nil
}

// chequer writes each second cluster of what will be the strangers' disk.
func chequer(socket string) error {
	c, err := nbdclient.Dial(context.Background(), "unix", socket, nbdclient.Options{Export: "template"})
	if err != nil {
		return err
	}
	defer c.Close()
	const cluster = 4096
	p := []byte(strings.Repeat("x", cluster))
	for off := int64(0); off < c.Size(); off += 2 * cluster {
		if _, err := c.WriteAt(p, off); err != nil {
			return err
		}
	}
	return nil
}

// guest is fio on a disk of its own.
type guest struct {
	options
	uri string
}

func (g guest) run(t time.Duration) (fio.Result, error) {
	return fio.Run("--ioengine=nbd", "--uri="+g.uri, "--rw="+g.load, "--bs=4k", "--iodepth=32", "--size=256m", "--norandommap",
		"--time_based", fmt.Sprintf("--runtime=%g", t.Seconds()), "--randrepeat=0")
}

// outcome is a run of the guest alone and one beside an attack.
type outcome struct {
	alone, beside          fio.Result
	serverAlone            float64 // CPUs
	used                   used    // beside
	opened, refused, ended int
	rss                    int64
}

// pair runs the guest alone and beside an attack, or the other way round.
func (g guest) pair(a hostile.Attack, t hostile.Target, proc *server.Process, swapped bool) (o outcome, err error) {
	runs := []func() error{func() error { return g.alone(&o, proc) }, func() error { return g.beside(&o, a, t, proc) }}
	if swapped {
		runs[0], runs[1] = runs[1], runs[0]
	}
	for _, run := range runs {
		if err := run(); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (g guest) alone(o *outcome, proc *server.Process) error {
	before, err := spending(proc)
	if err != nil {
		return err
	}
	if o.alone, err = g.run(g.time); err != nil {
		return err
	}
	after, err := spending(proc)
	o.serverAlone = after.since(before).server
	return err
}

func (g guest) beside(o *outcome, a hostile.Attack, t hostile.Target, proc *server.Process) error {
	h, err := a.Begin(t, a.Connections)
	if err != nil {
		return err
	}
	defer h.Close()
	if a.Stays && t.Network == "unix" {
		h.Release(spare)
	}
	type end struct {
		fio.Result
		error
	}
	before, err := spending(proc)
	if err != nil {
		return err
	}
	done := make(chan end, 1)
	go func() {
		r, err := g.run(g.time)
		done <- end{r, err}
	}()
	const now = 100 * time.Millisecond // and then
	tick := time.NewTicker(now)
	defer tick.Stop()
	for {
		select {
		case e := <-done:
			if e.error != nil {
				return e.error
			}
			after, err := spending(proc)
			o.beside, o.used = e.Result, after.since(before)
			o.opened, o.refused, o.ended = h.Connections(), h.Refused, h.Ended
			return err
		case <-tick.C:
			if err := h.Nag(); err != nil {
				<-done
				return err
			}
			if rss, err := proc.RSS(); err == nil {
				o.rss = max(o.rss, rss)
			}
		}
	}
}
