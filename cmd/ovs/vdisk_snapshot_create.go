package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (a *app) vdiskSnapshotCreate() *cobra.Command {
	return &cobra.Command{
		Use:               "create NAME SNAP",
		Short:             "take a snapshot of a vDisk",
		Args:              wants("NAME", "SNAP"),
		ValidArgsFunction: a.completeNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			s, err := client.SnapshotCreate(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { fmt.Fprintf(w, "created %s@%s\n", args[0], s.Name) })
		},
	}
}
