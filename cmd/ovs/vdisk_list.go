package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

func (cmds vdiskCommands) list() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "list the vDisks",
		Args:              wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			list, err := client.List(c.Context())
			if err != nil {
				return err
			}
			return cmds.print(list, func(w io.Writer) { writeList(w, list) })
		}),
	}
}

func writeList(w io.Writer, list []control.VDisk) {
	fmt.Fprintln(w, "NAME\tSIZE\tSTATE\tLOCAL\tSTORED\tBACKLOG\tSNAPSHOTS\tPARENT")
	for _, v := range list {
		parent := v.Parent
		if parent == "" {
			parent = "-"
		}
		if v.State == control.StateElsewhere {
			fmt.Fprintf(w, "%s\t%s\t%s\t-\t-\t-\t-\t%s\n", v.Name, orUnknown(v.Size), v.State, parent)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n",
			v.Name, orUnknown(v.Size), v.State, human(v.Local), human(v.Stored), human(v.Backlog), len(v.Snapshots), parent)
	}
	for _, v := range list {
		switch {
		case v.Reason == "":
		case v.State == control.StateRunning:
			fmt.Fprintf(w, "%s: %s\n", v.Name, v.Reason)
		default:
			fmt.Fprintf(w, "%s is %s: %s\n", v.Name, v.State, v.Reason)
		}
	}
}
