package main

import "github.com/spf13/cobra"

func (a *app) vdiskSnapshotDelete() *cobra.Command {
	return &cobra.Command{
		Use:               "delete NAME SNAP",
		Short:             "remove a snapshot",
		Args:              wants("NAME", "SNAP"),
		ValidArgsFunction: a.completeNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.SnapshotDelete(c.Context(), args[0], args[1]); err != nil {
				return err
			}
			return a.done("deleted", args[0]+"@"+args[1])
		},
	}
}
