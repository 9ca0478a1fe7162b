from .api import report as report
from .finding import Finding as Finding
from .plan import ReportSettings as ReportSettings
from .result import ModelReport as ModelReport
from .result import Report as Report
