package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/cmd/ovs/arakooncmd"
	"openvstorage/cmd/ovs/clustercmd"
	"openvstorage/cmd/ovs/inspectcmd"
	"openvstorage/cmd/ovs/recovercmd"
	"openvstorage/internal/control"
	"openvstorage/internal/counted"
)

// app is what all commands share: the flags that all of them have, and where they print.
type app struct {
	data   string
	json   bool
	stdout io.Writer
	stderr io.Writer
}

func newApp(stdout, stderr io.Writer) *app { return &app{stdout: stdout, stderr: stderr} }

func (a *app) root() *cobra.Command {
	tools := clustercmd.Tools{Client: a.client, Print: a.print, Done: a.done, Group: group, Wants: wants, Usage: usagef}
	c := group("ovs", "block storage for virtual machines",
		upCommand{a}.command(), vdiskCommands{a}.group(), albaCommands{a}.group(),
		inspectcmd.Command(inspectcmd.Tools{Tools: tools, PrintShort: a.printShort, Stdout: a.stdout}), loopCommands{a}.group())
	c.AddCommand(append(tools.Commands(), arakooncmd.Commands(tools)...)...)
	c.AddCommand(recovercmd.Command(tools, a.directory))
	c.Long = `ovs serves virtual disks over NBD and keeps them in one data directory.

Start with:
  ovs up --data DIR                                   (leave it running)
  ovs vdisk create disk1 --size 10GiB --data DIR

Exit codes: 0 done, 1 failed, 2 wrong usage.`
	c.Version = release
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetOut(a.stdout)
	c.SetErr(a.stderr)
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%s: %w; see %s --help", c.CommandPath(), err, c.CommandPath())
	})
	flags := c.PersistentFlags()
	flags.StringVar(&a.data, "data", os.Getenv("OVS_DATA"), "data `directory` (or set OVS_DATA)")
	flags.BoolVar(&a.json, "json", a.json, "print JSON, errors too")
	flags.Lookup("json").DefValue = "false" // run has set it, and help would show that as the default
	_ = c.MarkPersistentFlagDirname("data")
	return c
}

// group is a command that only holds others. Called by itself it is wrong usage, so that a script
// with a typing error does not exit with 0.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				if json, _ := c.Flags().GetBool("json"); !json {
					_, _ = fmt.Fprint(c.ErrOrStderr(), c.UsageString())
				}
				return usagef("%s needs a command", c.CommandPath())
			}
			hint := ""
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf(" (did you mean %s?)", strings.Join(near, " or "))
			}
			return usagef("%s has no command %q%s; see %s --help", c.CommandPath(), args[0], hint, c.CommandPath())
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.SuggestionsMinimumDistance = 2
	c.AddCommand(children...)
	return c
}

// wants checks that there are as many arguments as names.
func wants(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		want := strings.Join(names, " ")
		if want == "" {
			want = "no arguments"
		}
		return usagef("%s wants %s, got %s; see %s --help", c.CommandPath(), want, counted.Of(len(args), "argument", "arguments"), c.CommandPath())
	}
}

// directory returns the data directory that was named. There is no default: a wrong guess would
// serve, or make, another one.
func (a *app) directory() (string, error) {
	if a.data == "" {
		return "", usagef("no data directory named; use --data DIR or set OVS_DATA")
	}
	return a.data, nil
}

// client returns a client of the `ovs up` that serves the data directory.
func (a *app) client() (*control.Client, error) {
	dir, err := a.directory()
	if err != nil {
		return nil, err
	}
	return control.NewClient(dir), nil
}

// asks makes what a command runs of a function that asks `ovs up`. It is for commands that have
// nothing to check before: wrong usage is reported even if no data directory was named.
func (a *app) asks(do func(c *cobra.Command, client *control.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		return do(c, client, args)
	}
}

// offers completes arguments in a shell.
func (a *app) offers() offers { return offers{a.client} }
