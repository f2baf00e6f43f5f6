// Command ovs is all of the system in one binary. `ovs up` serves the vDisks of a data directory.
// The other commands talk to it, or read its files.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage. An error is one line on standard
// error, JSON under --json: what failed, on which object, and what to do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"openvstorage/host"
	"openvstorage/internal/control"
	"openvstorage/internal/image"
	"openvstorage/volumedriver"
)

// release is the version of this binary; the Makefile sets it.
var release = "devel"

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main with arguments and outputs passed in, and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	// The first signal cancels what runs; `ovs up` makes that a clean stop.
	// The second ends the process at once, whatever it waits for.
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		s := <-signals
		cancel(signalError{s})
		<-signals
		host.Leave(stderr)
		os.Exit(exitFailed)
	}()

	a := newApp(stdout, stderr)
	// An error in an argument before --json is found before that flag is parsed, and must be
	// JSON as well.
	a.json = wantsJSON(args)
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	// "context canceled" says nothing to a user; the signal does.
	if errors.Is(err, context.Canceled) && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	a.printError(err)
	return exitCode(err)
}

// signalError is why a context was canceled.
type signalError struct{ os.Signal }

func (e signalError) Error() string { return fmt.Sprintf("stopped by signal %q", e.Signal) }
func (e signalError) Unwrap() error { return context.Canceled }

// usageError is an error in how ovs was called.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode is the exit code for an error. What the caller must write differently is wrong usage,
// be it found here or by the server: trying again does not help. All else has failed.
func exitCode(err error) int {
	var usage usageError
	if errors.As(err, &usage) || image.Refused(err) || errors.Is(err, control.ErrInvalid) || errors.Is(err, volumedriver.ErrInvalid) {
		return exitUsage
	}
	return exitFailed
}

// oneLine writes an error without line breaks, so that grep finds the whole of it.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
