// Package clustercmd has the commands about a cluster: `ovs host`, `ovs ca` and `ovs
// status`. What they share with all others, the program gives them.
package clustercmd

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

// Tools is what the commands use of the program that they are part of.
type Tools struct {
	// Client returns a client of the `ovs up` that serves the data directory.
	Client func() (*control.Client, error)
	// Print writes v as JSON if that was asked for, and otherwise has text write it.
	Print func(v any, text func(w io.Writer)) error
	// Done reports a change that has no other result.
	Done func(what, name string) error
	// Group makes a command that only holds others.
	Group func(use, short string, children ...*cobra.Command) *cobra.Command
	// Wants checks that there are as many arguments as names.
	Wants func(names ...string) cobra.PositionalArgs
	// Usage makes an error of wrong usage.
	Usage func(format string, args ...any) error
}

// Commands returns all commands of this package.
func (t Tools) Commands() []*cobra.Command {
	return []*cobra.Command{hostCommands{t}.group(), caCommands{t}.group(), statusCommand{t}.command()}
}

// asks makes what a command runs of a function that asks `ovs up`.
func (t Tools) asks(do func(c *cobra.Command, client *control.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		client, err := t.Client()
		if err != nil {
			return err
		}
		return do(c, client, args)
	}
}

// When is a time as it is printed.
func When(t time.Time) string { return t.Local().Format(time.DateTime) }

// completionTimeout bounds the wait for what a shell offers: an error message would garble
// the command line that is being typed.
const completionTimeout = time.Second

// CompletionContext is the context of a question that completes a command line.
func CompletionContext(c *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.Context(), completionTimeout)
}
