"""The paper's Tables 2 to 6 and Figure 2 from your own copies of the datasets; goes on where it stopped.

python jobs/reproduce.py --jamendo jamendo.parquet --cal500 cal500.parquet --emotify emotify.parquet \\
    --features s3://music/features --output reproduction/
python jobs/reproduce.py --emotify emotify.parquet --features features/ --output reproduction/ --only table2
python jobs/reproduce.py --cal500 cal500.parquet --emotify emotify.parquet --features features/ \\
    --output reproduction/ --only table5 --only sweep --seeds 5
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.paper.settings import ReproduceSettings


def main(settings: ReproduceSettings) -> int:
    """Train and test what the tables need, write the page and print the tables."""
    from mer_ray.pages import Section, markdown
    from mer_ray.paper.report import TITLE, table_sections, verdict, write_paper_report
    from mer_ray.paper.reproduction import reproduce

    made = reproduce(settings)
    write_paper_report(settings, made)
    print(f"\n{markdown(TITLE, [*table_sections(settings, made), Section('In short', [verdict(made)])])}")
    print(f"reproduce: page in {settings.output}/report.html, figures and results.json beside it")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, ReproduceSettings))
