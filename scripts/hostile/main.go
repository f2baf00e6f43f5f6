// Hostile runs a guest beside strangers that mean harm, attack by attack, and
// prints what is left to the guest: its requests a second and its 99th percentile
// against those of the same guest alone, just before. It fails if less than half
// of the first or more than three times the second is left, or if a request took
// over ten seconds.
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
	"text/tabwriter"
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
)

type options struct {
	time     time.Duration
	networks []string
	only     *regexp.Regexp
	dir      string
	load     string
}

func main() {
	var o options
	flag.DurationVar(&o.time, "time", 10*time.Second, "`time` of a run; each attack takes two")
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
	for name, size := range map[string]string{"guest": "256MiB", "strangers": "64MiB"} {
		if _, err := ovs.Run("vdisk", "create", name, "--size", size); err != nil {
			return err
		}
	}
	if err := chequer(proc.Socket); err != nil {
		return err
	}
	g := guest{uri: (&url.URL{Scheme: "nbd+unix", Path: "/guest", RawQuery: "socket=" + proc.Socket}).String(), options: o}
	if _, err := g.run(2 * time.Second); err != nil { // its write buffer is warm
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "attack\tby\tconnections\trefused\tended\tIOPS alone\tIOPS\tratio\tp99 alone\tp99\tratio\tlongest\tRSS MiB\t")
	var failed []string
	for _, a := range hostile.Attacks() {
		for _, network := range o.networks {
			target := hostile.Target{Network: network, Address: proc.Socket, Export: "strangers"}
			switch {
			case !o.only.MatchString(a.Name) || a.Metrics && network != "tcp":
				continue
			case a.Metrics:
				target.Address = metrics
			case network == "tcp":
				target.Address = address
			}
			r, err := g.beside(a, target, proc)
			if err != nil {
				return fmt.Errorf("%s by %s: %w", a.Name, network, err)
			}
			fmt.Fprintln(table, r.line(a.Name, network))
			table.Flush()
			if !r.good() {
				failed = append(failed, a.Name+" by "+network)
			}
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("the guest has lost too much beside %s", strings.Join(failed, ", "))
	}
	return nil
}

// chequer writes each second cluster of the strangers' disk.
func chequer(socket string) error {
	c, err := nbdclient.Dial(context.Background(), "unix", socket, nbdclient.Options{Export: "strangers"})
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

// outcome is what was left to the guest.
type outcome struct {
	alone, beside          fio.Result
	opened, refused, ended int
	rss                    int64
}

// beside runs the guest alone, and then beside an attack.
func (g guest) beside(a hostile.Attack, t hostile.Target, proc *server.Process) (o outcome, err error) {
	if o.alone, err = g.run(g.time); err != nil {
		return o, err
	}
	h, err := a.Begin(t, a.Connections)
	if err != nil {
		return o, err
	}
	defer h.Close()
	type end struct {
		fio.Result
		error
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
			o.beside, o.opened, o.refused, o.ended = e.Result, h.Connections(), h.Refused, h.Ended
			return o, e.error
		case <-tick.C:
			if err := h.Nag(); err != nil {
				return o, err
			}
			if rss, err := proc.RSS(); err == nil {
				o.rss = max(o.rss, rss)
			}
		}
	}
}

func (o outcome) good() bool {
	return o.beside.IOPS >= leastIOPS*o.alone.IOPS && o.beside.P99 <= mostP99*o.alone.P99 && o.beside.Max <= mostStall
}

func (o outcome) line(attack, network string) string {
	return fmt.Sprintf("%s\t%s\t%d\t%d\t%d\t%.0f\t%.0f\t%.2f\t%v\t%v\t%.2f\t%v\t%d\t", attack, network, o.opened, o.refused, o.ended,
		o.alone.IOPS, o.beside.IOPS, o.beside.IOPS/o.alone.IOPS,
		o.alone.P99.Round(time.Microsecond), o.beside.P99.Round(time.Microsecond), float64(o.beside.P99)/float64(o.alone.P99),
		o.beside.Max.Round(time.Microsecond), o.rss>>20)
}
