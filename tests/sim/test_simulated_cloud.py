"""Small simulated clouds."""

from kilonova.sim.simulation import Plan, Simulation


def test_a_cloud_without_faults_boots_servers() -> None:
    simulation = Simulation(Plan(seed=1, faults=()))
    simulation.run()
    assert len(simulation.users.accepted.created) == 5
    assert simulation.loop.complaints == []
