// Package inspect verifies single files and objects, for `ovs inspect`, and describes
// what is in them: as values, which become JSON, and as tables for people. It changes
// nothing, and needs no running `ovs up`.
package inspect

import (
	"fmt"
	"io"
	"time"

	"openvstorage/internal/counted"
	"openvstorage/internal/size"
)

// Damage is what an inspection finds wrong, a line for each fault.
type Damage []string

// Err is an error that says that a file has this damage, nil if it has none.
func (d Damage) Err(file string) error {
	if len(d) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s, the first: %s", file, counted.Of(len(d), "fault", "faults"), d[0])
}

func (d *Damage) fault(format string, args ...any) { *d = append(*d, fmt.Sprintf(format, args...)) }

// table returns a function that writes a row of a table with tabs: a name, and what it
// is.
func table(w io.Writer) func(name, format string, args ...any) {
	return func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
}

func human(bytes uint64) string { return size.Bytes(bytes).Human() }

func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
