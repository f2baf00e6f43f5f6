package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"
)

// row is what counts of the rounds of an attack: the median of each figure, and
// of each ratio, but the worst of what must never be.
type row struct {
	outcome
	iops, p99 float64 // ratios
}

func (r row) good() bool {
	return r.iops >= leastIOPS && r.p99 <= mostP99 && r.beside.Max <= mostStall
}

func medians(rounds []outcome) (r row) {
	r.alone.IOPS = median(rounds, func(o outcome) float64 { return o.alone.IOPS })
	r.alone.P99 = median(rounds, func(o outcome) time.Duration { return o.alone.P99 })
	r.beside.IOPS = median(rounds, func(o outcome) float64 { return o.beside.IOPS })
	r.beside.P99 = median(rounds, func(o outcome) time.Duration { return o.beside.P99 })
	r.iops = median(rounds, func(o outcome) float64 { return o.beside.IOPS / max(1, o.alone.IOPS) })
	r.p99 = median(rounds, func(o outcome) float64 { return float64(o.beside.P99) / float64(max(1, o.alone.P99)) })
	r.serverAlone = median(rounds, func(o outcome) float64 { return o.serverAlone })
	r.used = used{
		attacker: median(rounds, func(o outcome) float64 { return o.used.attacker }),
		server:   median(rounds, func(o outcome) float64 { return o.used.server }),
		guest:    median(rounds, func(o outcome) float64 { return o.used.guest }),
		others:   median(rounds, func(o outcome) float64 { return o.used.others }),
	}
	for _, o := range rounds {
		r.opened = max(r.opened, o.opened)
		r.refused += o.refused
		r.ended += o.ended
		r.beside.Max = max(r.beside.Max, o.beside.Max)
		r.rss = max(r.rss, o.rss)
	}
	return r
}

// median is the lower one of an even number.
func median[T cmp.Ordered](rounds []outcome, of func(outcome) T) T {
	var all []T
	for _, o := range rounds {
		all = append(all, of(o))
	}
	slices.Sort(all)
	return all[(len(all)-1)/2]
}

// table prints rows as they come, so its columns have a width of their own.
type table struct{ w io.Writer }

const (
	tableHead = "%-13s %-4s %6s %7s %7s | %7s %7s %5s | %8s %8s %5s | %8s | %4s | %5s %5s %5s %5s %5s\n"
	tableRow  = "%-13s %-4s %6d %7d %7d | %7.0f %7.0f %5.2f | %8s %8s %5.2f | %8s | %4d | %5.2f %5.2f %5.2f %5.2f %5.2f\n"
)

func newTable(w io.Writer) table {
	fmt.Fprintf(w, "%-41s | %-21s | %-23s | %8s | %4s | CPUs\n", "attack", "requests a second", "99th percentile, ms", "longest", "RSS")
	fmt.Fprintf(w, tableHead, "", "by", "conns", "refused", "ended", "alone", "beside", "ratio", "alone", "beside", "ratio",
		"ms", "MiB", "alone", "serv.", "guest", "att.", "other")
	return table{w}
}

// row prints a row and tells whether it is within the bars.
func (t table) row(attack, network string, r row) bool {
	fmt.Fprintf(t.w, tableRow, attack, network, r.opened, r.refused, r.ended, r.alone.IOPS, r.beside.IOPS, r.iops,
		ms(r.alone.P99), ms(r.beside.P99), r.p99, ms(r.beside.Max), r.rss>>20,
		r.serverAlone, r.used.server, r.used.guest, r.used.attacker, r.used.others)
	return r.good()
}

// skipped says why there is no row.
func (t table) skipped(attack, network, reason string) {
	fmt.Fprintf(t.w, "%-13s %-4s not run: %s\n", attack, network, reason)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }
