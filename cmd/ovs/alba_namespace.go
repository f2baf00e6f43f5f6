package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
	"openvstorage/internal/counted"
)

// namespaceCommands are the commands of `ovs alba namespace`.
type namespaceCommands struct{ *app }

func (cmds namespaceCommands) group() *cobra.Command {
	return group("namespace", "namespaces, one for each vDisk: list and show", cmds.list(), cmds.show())
}

func (cmds namespaceCommands) list() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "list the namespaces and the vDisks that live in them",
		Args:              wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			list, err := client.Namespaces(c.Context())
			if err != nil {
				return err
			}
			return cmds.printShort(list, func(w io.Writer) {
				fmt.Fprintln(w, "NAMESPACE\tVDISK\tPRESET\tOBJECTS\tSIZE\tSTORED\tSTATE")
				for _, n := range list {
					fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", n.Name, orDash(n.VDisk), orDash(n.Preset), n.Objects, human(n.Size), human(n.Stored), n.State)
				}
			})
		}),
	}
}

func (cmds namespaceCommands) show() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAMESPACE",
		Short:             "show one namespace, by its name or that of its vDisk",
		Args:              wants("NAMESPACE"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			n, err := client.Namespace(c.Context(), args[0])
			if err != nil {
				return err
			}
			return cmds.print(n, func(w io.Writer) { writeNamespace(w, n) })
		}),
	}
}

func writeNamespace(w io.Writer, n control.Namespace) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("namespace", "%s", n.Name)
	row("vdisk", "%s", orDash(n.VDisk))
	row("state", "%s", n.State)
	if n.Reason != "" {
		row("reason", "%s", n.Reason)
	}
	row("preset", "%s", n.Preset)
	row("number", "%d, on NSM host %d", n.Number, n.Host)
	row("created", "%s", when(n.Created))
	row("objects", "%d", n.Objects)
	row("size", "%s", human(n.Size))
	row("stored", "%s in fragments", human(n.Stored))
	for _, b := range n.Buckets {
		switch {
		case b.K == 0:
			row("objects", "%d in their manifests", b.Objects)
		case b.Full():
			row("objects", "%d of %d+%d fragments, all there", b.Objects, b.K, b.M)
		default:
			row("objects", "%d of %d+%d fragments, %d there: below full width", b.Objects, b.K, b.M, b.Present)
		}
	}
	for _, o := range n.OSDs {
		row("disk", "%d: %s, %s", o.OSD, counted.Of(o.Fragments, "fragment", "fragments"), human(o.Bytes))
	}
	if n.Epochs != nil {
		row("gc epochs", "%d to %d are open", n.Epochs.Minimum, n.Epochs.Next-1)
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
