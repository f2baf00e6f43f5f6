package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"openvstorage/host"
	"openvstorage/internal/control"
	"openvstorage/internal/size"
)

// print writes v as JSON if --json was given, with every list an array. Otherwise text writes it,
// into columns.
func (a *app) print(v any, text func(w io.Writer)) error { return a.printLists(v, false, text) }

// printShort is print, and leaves out the lists that are printed only when a flag asks
// for them.
func (a *app) printShort(v any, text func(w io.Writer)) error { return a.printLists(v, true, text) }

func (a *app) printLists(v any, short bool, text func(w io.Writer)) error {
	if a.json {
		b, err := listsJSON(v, short)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if err := json.Indent(&out, b, "", "  "); err != nil {
			return err
		}
		out.WriteByte('\n')
		_, err = out.WriteTo(a.stdout)
		return err
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	text(w)
	return w.Flush()
}

// failure is an error as --json prints it.
type failure struct {
	Error string `json:"error"`
	Kind  string `json:"kind"` // "usage", the kind that the server has given, or "failed"
	Code  int    `json:"code"` // exit code of the process
}

// printError writes an error to standard error, on one line.
func (a *app) printError(err error) {
	if !a.json {
		fmt.Fprintf(a.stderr, "ovs: %s\n", oneLine(err))
		return
	}
	f := failure{Error: oneLine(err), Kind: control.Kind(host.Kind(err)), Code: exitCode(err)}
	if f.Code == exitUsage {
		f.Kind = "usage"
	}
	encoder := json.NewEncoder(a.stderr)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(f)
}

// wantsJSON says whether --json is among the arguments.
func wantsJSON(args []string) bool {
	for _, arg := range args {
		switch arg {
		case "--":
			return false
		case "--json", "--json=true":
			return true
		}
	}
	return false
}

// done reports a change that has no other result.
func (a *app) done(what, name string) error {
	return a.print(map[string]string{"done": what, "name": name}, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s\n", what, name)
	})
}

func human(bytes uint64) string { return size.Bytes(bytes).Human() }

// orUnknown is the size of a vDisk in words. No vDisk has 0 bytes: that is one whose catalog could
// not be read.
func orUnknown(bytes uint64) string {
	if bytes == 0 {
		return "unknown"
	}
	return human(bytes)
}

func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// progress returns a function that draws a bar on standard error, and one that takes it away. If
// that is no terminal draw is nil, and end does nothing: a bar in a log is noise.
func (a *app) progress(what string) (draw func(done, total int64), end func()) {
	f, ok := a.stderr.(*os.File)
	if !ok || a.json || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	bar := progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(f),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionFullWidth(),
	)
	return func(done, total int64) {
		if total > 0 && bar.GetMax64() != total {
			bar.ChangeMax64(total)
		}
		_ = bar.Set64(min(done, total))
	}, func() { _ = bar.Clear() }
}
