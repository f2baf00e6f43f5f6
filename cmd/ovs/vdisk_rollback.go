package main

import "github.com/spf13/cobra"

func (a *app) vdiskRollback() *cobra.Command {
	return &cobra.Command{
		Use:               "rollback NAME SNAP",
		Short:             "bring a vDisk back to a snapshot; what was written since is gone",
		Args:              wants("NAME", "SNAP"),
		ValidArgsFunction: a.completeNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.Rollback(c.Context(), args[0], args[1]); err != nil {
				return err
			}
			return a.done("rolled back", args[0])
		},
	}
}
