package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	albahere "openvstorage/alba/embedded"
	"openvstorage/internal/control"
	"openvstorage/internal/counted"
)

func (cmds backendCommands) check() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "compare what the managers know with what is on the disks",
		Long: `ovs alba backend check asks each disk for every fragment that should be on it,
and counts those that no object names. It reads no data and changes nothing.

It passes if every vDisk's namespace is known, and every object has as many
fragments as it takes to read it. An object that misses some is weak, and is
made whole by itself.`,
		Args:              wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			r, err := client.BackendCheck(c.Context())
			if err != nil {
				return err
			}
			if err := cmds.print(r, func(w io.Writer) { writeCheck(w, r) }); err != nil {
				return err
			}
			// A check that has not passed is printed in full, and fails: scripts go by the
			// exit code.
			if !r.Passed {
				return fmt.Errorf("%w: restore what is missing", albahere.ErrCheck)
			}
			return nil
		}),
	}
}

func (cmds backendCommands) resumeDeletion() *cobra.Command {
	return &cobra.Command{
		Use:   "resume-deletion",
		Short: "let fragments be deleted again, after an older copy was accepted or too many seemed to be orphans",
		Long: `ovs alba backend resume-deletion says that what the backend knows is all that
there is, and that fragments which no object names are of no use to anybody.

Deletion on disks is suspended after ` + "`ovs up --accept-older`" + `, and a collection of
orphans stops by itself if it finds more than uploads can have left. The reasons
in ` + "`ovs alba backend status`" + ` say so. What is deleted then cannot be restored by
putting newer metadata back. The command checks first, as ` + "`ovs alba backend check`" + `
does, and refuses if something cannot be read.`,
		Args:              wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			r, err := client.ResumeDeletion(c.Context())
			if err != nil {
				return err
			}
			return cmds.print(r, func(w io.Writer) { writeCheck(w, r) })
		}),
	}
}

func writeCheck(w io.Writer, r control.Check) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	passed := "no"
	if r.Passed {
		passed = "yes"
	}
	row("passed", "%s", passed)
	row("objects", "%d in %s", r.Objects, counted.Of(r.Namespaces, "namespace", "namespaces"))
	row("unreadable", "%d", r.Unreadable)
	row("weak", "%d", r.Weak)
	row("fragments", "%d, %d of them named by no object", r.Fragments, r.Unnamed)
	row("disks that could not be asked", "%d", r.Missing)
	for _, p := range r.Problems {
		row("problem", "%s", p)
	}
}
